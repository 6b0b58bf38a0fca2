//! Builds the static program that the crate carries: the spawner with the agent in it.
//!
//! A nested cargo with a target directory of its own; the outer one holds no lock on that.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What cargo gives a build script and a nested cargo must not take for its own settings.
const OURS: [&str; 16] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC",
    "RUSTDOC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "TARGET",
    "HOST",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
    "NUM_JOBS",
    "MAKEFLAGS",
];
/// Settings of the user that a nested cargo needs as well: where crates are and how to fetch them.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
];

fn main() -> ExitCode {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.join("../..");
    for source in [
        "crates/providers/native/spawner",
        "crates/agent",
        "crates/protocol",
        "crates/types",
        "Cargo.lock",
        "Cargo.toml",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    match build(&root) {
        Ok(program) => {
            println!("cargo:rustc-env=STACYVM_SPAWNER={}", program.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = env::var_os("TARGET").expect("cargo sets it");
    let target_dir = out.join("spawner-target");
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["build", "--package", "spawner", "--release", "--locked", "--target"])
        .arg(&target)
        .arg("--target-dir")
        .arg(&target_dir)
        .stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let cargos = text.starts_with("CARGO") && !KEPT.iter().any(|k| text.starts_with(k));
        if cargos || OURS.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    let flags = "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static";
    command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    let done = command.output().map_err(|e| format!("cargo does not start: {e}"))?;
    if !done.status.success() {
        return Err(format!(
            "the program that runs inside sandboxes (crate `spawner`, linked statically for {}) \
             does not build: {}\n{}",
            target.to_string_lossy(),
            done.status,
            String::from_utf8_lossy(&done.stderr)
        ));
    }
    Ok(target_dir.join(target).join("release/spawner"))
}
