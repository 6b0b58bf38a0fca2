//! `serve`.

use super::load_options;
use crate::assemble::{self, Runtime, Serving};
use crate::cli::{Global, Serve};
use crate::config;
use crate::failure::Failure;

pub fn run(global: &Global, args: Serve) -> Result<u8, Failure> {
    let (mut options, env) = load_options(global);
    let host = args.host.map(|host| ("server.host", host));
    let port = args.port.map(|port| ("server.port", port.to_string()));
    options.overrides.extend(host.into_iter().chain(port));
    let loaded = config::load_served(&options, &env)?;
    assemble::start_logging(&loaded.config);
    assemble::lift_limits();
    let serving = Serving { addr_file: args.addr_file, insecure: args.insecure };
    Runtime::multi_thread()?.block_on(assemble::serve(&loaded, &serving))
}
