//! One file for each command: reads its arguments, does the work through the floors below, prints.

mod attach;
mod completion;
mod config;
mod cp;
mod doctor;
mod exec;
mod image;
mod kill;
mod list;
mod logs;
mod ps;
mod run;
mod serve;
mod session;
mod spawn;
mod version;

use client::Client;

use crate::assemble::Runtime;
use crate::cli::{Cli, Command, Global};
use crate::config::{Environment, LoadOptions};
use crate::failure::Failure;

/// The exit code of a command that did what it was asked.
const DONE: u8 = 0;

/// Does what the command line says; returns the exit code.
pub fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    let done = match command {
        Command::Serve(args) => return serve::run(&global, args),
        Command::Run(args) => return run::run(&global, args),
        Command::Exec(args) => return remote(exec::run(&global, args)),
        Command::Attach(args) => return remote(attach::run(&global, args)),
        Command::Ps(args) => remote(ps::run(&global, args)),
        Command::Completion(args) => completion::run(&args),
        Command::Spawn(args) => remote(spawn::run(&global, args)),
        Command::List(format) => remote(list::run(&global, format)),
        Command::Kill(args) => remote(kill::run(&global, args)),
        Command::Cp(args) => remote(cp::run(&global, args)),
        Command::Logs(args) => remote(logs::run(&global, args)),
        Command::Image(args) => image::run(&global, args),
        Command::Doctor(args) => doctor::run(&global, args),
        Command::Config(args) => config::run(&global, args),
        Command::Version(format) => version::run(&format),
    };
    done.map(|()| DONE)
}

/// Runs a command that only talks to a server: one thread is enough.
fn remote<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    Runtime::one_thread()?.block_on(work)
}

fn client(global: &Global) -> Result<Client, Failure> {
    let mut options = client::Options::new(&global.server);
    options.api_key = global.api_key.clone();
    Ok(Client::new(options)?)
}

/// Whether a command in that state may still read.
fn may_read(state: &str) -> bool {
    matches!(state, "running" | "starting")
}

/// The kind of terminal that programs should take ours for.
fn term() -> Option<(String, String)> {
    let env = Environment::of_process();
    Some(("TERM".to_owned(), env.get("TERM")?.to_owned()))
}

/// Where the configuration of this call is to be found.
fn load_options(global: &Global) -> (LoadOptions, Environment) {
    let options = LoadOptions { file: global.config.clone(), overrides: Vec::new() };
    (options, Environment::of_process())
}
