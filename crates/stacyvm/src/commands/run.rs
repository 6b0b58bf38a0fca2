//! `run`.

use std::io::IsTerminal;

use types::SandboxSize;

use super::exec::{exit_code, explain};
use super::{load_options, term};
use crate::assemble::{self, Ended, OneShot, Runtime};
use crate::cli::{Global, Run};
use crate::config::{self, Config, Loaded, LogFormat};
use crate::failure::Failure;

pub fn run(global: &Global, args: Run) -> Result<u8, Failure> {
    let (options, env) = load_options(global);
    let loaded = config::load_served(&options, &env)?;
    start_logging(&loaded);
    let what = what(&loaded.config, args);
    match Runtime::multi_thread()?.block_on(assemble::run_once(&loaded.config, what))? {
        Ended::Exit(exit) => {
            explain(exit.timed_out, exit.oom_killed);
            Ok(exit_code(exit.exit_code))
        }
        Ended::Signal(signal) => Ok(signal.exit_code()),
    }
}

fn what(config: &Config, args: Run) -> OneShot {
    let (defaults, around) = (&config.defaults, args.surroundings);
    let term = args.tty.then(term).flatten();
    let usual = defaults.default_exec_timeout;
    OneShot {
        image: args.shape.image.unwrap_or_else(|| defaults.image.clone()),
        size: SandboxSize {
            memory_mb: args.shape.memory.unwrap_or(defaults.memory_mb),
            vcpus: args.shape.vcpus.unwrap_or(defaults.vcpus),
            disk_size_mb: args.shape.disk.unwrap_or(defaults.disk_size_mb),
        },
        argv: args.command,
        env: term.into_iter().chain(around.env).collect(),
        workdir: around.workdir,
        timeout: around.timeout.or((!usual.is_zero()).then_some(usual)),
        input: args.interactive || !std::io::stdin().is_terminal(),
        user: around.user,
        tty: args.tty,
    }
}

/// The command's own stderr is what a user wants to read: ours speaks of errors alone, unless the
/// configuration asks for more.
fn start_logging(loaded: &Loaded) {
    let mut config = loaded.config.clone();
    if !loaded.is_set("logging.level") {
        config.logging.level = config::LogLevel::Error;
    }
    if !loaded.is_set("logging.format") {
        config.logging.format = LogFormat::Pretty;
    }
    assemble::start_logging(&config);
}
