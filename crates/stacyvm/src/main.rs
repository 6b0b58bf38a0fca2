//! The `stacyvm` binary: reads the command line and hands over.

mod assemble;
mod check;
mod cli;
mod commands;
mod config;
mod failure;
mod output;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::dispatch(cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error(&failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}
