//! The `stacyvm` binary: reads the command line and hands over.
mod check;
mod config;
fn main() {}
