//! `completion`: what a shell needs to complete our words.

use clap::CommandFactory;

use crate::cli::{Cli, Completion};
use crate::failure::Failure;
use crate::output;

pub fn run(args: &Completion) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "stacyvm", &mut script);
    Ok(output::stdout_bytes(&script)?)
}
