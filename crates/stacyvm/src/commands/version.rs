//! `version`.

use std::env::consts::{ARCH, OS};

use serde_json::json;

use crate::cli::Format;
use crate::failure::Failure;
use crate::output;

pub fn run(format: &Format) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if format.json {
        output::json(&json!({ "version": version, "os": OS, "arch": ARCH }))?;
    } else {
        output::line(&format!("stacyvm {version} ({OS}/{ARCH})"))?;
    }
    Ok(())
}
