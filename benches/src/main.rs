//! Measures StacyVM as a user meets it: a built server, the real HTTP API, and what a user would
//! pick instead, in the same run. Prints a Markdown table; `--write` puts it into SPECIFICATION.md.
//!
//! Nothing here passes or fails: a figure that misses its aim is shown as such.

#![allow(clippy::print_stdout)] // the table is the product

mod args;
mod baseline;
mod client;
mod docker;
mod ground;
mod host;
mod load;
mod numbers;
mod registry;
mod report;
mod scenarios;

use std::process::ExitCode;

use args::Args;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    // One thread: the server needs the processors more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    match runtime.block_on(measured(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that was started is undone when this returns, also when it is told to stop.
async fn measured(args: &Args) -> Result<(), String> {
    let mut term = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let report = tokio::select! {
        report = scenarios::run(args) => report?,
        _ = tokio::signal::ctrl_c() => return Err("interrupted".to_owned()),
        _ = term.recv() => return Err("told to stop".to_owned()),
    };
    let text = report.markdown();
    println!("{text}");
    if let Some(file) = &args.write {
        report::write_between_markers(file, &text)?;
    }
    Ok(())
}
