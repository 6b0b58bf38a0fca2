//! Where the built `stacyvm` is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The binary under test: `STACYVM_BIN`, or the one beside this test, built now if it is stale.
pub fn stacyvm() -> &'static Path {
    BINARY.get_or_init(find)
}

#[allow(clippy::disallowed_methods)] // a test's own switch, not the product's configuration
fn find() -> PathBuf {
    if let Ok(given) = std::env::var("STACYVM_BIN") {
        return PathBuf::from(given);
    }
    // target/<profile>/deps/<test>, or target/<profile>/<program>
    let us = std::env::current_exe().expect("a running test has a file");
    let dir = us.parent().expect("a file lies in a folder");
    let profile = if dir.ends_with("deps") { dir.parent().expect("as above") } else { dir };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", "stacyvm"]);
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    build.env("CARGO_TARGET_DIR", profile.parent().expect("a profile lies in the target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.status().expect("cargo can be run");
    assert!(built.success(), "building stacyvm failed");
    profile.join("stacyvm")
}
