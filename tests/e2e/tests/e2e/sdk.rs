//! The published Python client library against a real server on the native provider. What it does
//! there stands in `tests/sdk/drive.py`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{System, busybox_rootfs, wait_for};

const KEY: &str = "a-key-for-the-client-library-test";

#[tokio::test]
async fn every_method_works_with_an_imported_image() {
    let config = json!({ "auth": { "api_key": KEY }, "defaults": { "memory_mb": 128 } });
    let system = System::new(config);
    import_busybox(&system, "alpine:latest");
    drive(system).await;
}

/// The library asks for `alpine:latest` whenever its user names no image.
#[tokio::test]
async fn every_method_works_with_an_alias() {
    let aliases = json!({ "alpine:latest": "busybox:here" });
    let config = json!({ "auth": { "api_key": KEY }, "images": { "aliases": aliases } });
    let system = System::new(config);
    import_busybox(&system, "busybox:here");
    drive(system).await;
}

async fn drive(mut system: System) {
    let server = system.start().await;
    for mode in ["sync", "async"] {
        let (url, python) = (server.url(), python());
        let mut program = Command::new(python);
        program.arg(tree().join("tests/sdk/drive.py")).args([mode, &url, KEY]);
        // A proxy of this machine is not what is tested, nor is a folder of stale byte code.
        program.env("NO_PROXY", "*").env("PYTHONDONTWRITEBYTECODE", "1");
        let ended = tokio::task::spawn_blocking(move || program.output()).await;
        let ended = ended.expect("waiting does not panic").expect("python can be run");
        assert!(ended.status.success(), "{mode}: {}", words(&ended));
    }
    let log = server.log();
    assert!(server.stop().await.success(), "{log}");
    let loud = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let loud: Vec<_> = loud.filter(|e| e["level"] == "WARN" || e["level"] == "ERROR").collect();
    assert!(loud.is_empty(), "{loud:#?}");
    wait_for("nothing to be left over", Duration::from_secs(10), async || {
        match system.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.iter().map(|l| format!("{l}\n")).collect::<String>()),
        }
    })
    .await;
}

/// As a tar, which is how images come.
fn import_busybox(system: &System, tag: &str) {
    let dir = TempDir::new().expect("a temporary folder can be made");
    let (root, tar) = (dir.path().join("root"), dir.path().join("busybox.tar"));
    fs::create_dir(&root).expect("the folder is ours");
    busybox_rootfs(&root).expect("busybox is installed (Debian: busybox-static)");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").output();
    let packed = packed.expect("tar can be run");
    assert!(packed.status.success(), "{}", words(&packed));
    let tar = tar.to_str().expect("temporary folders have plain names");
    let import = ["image", "import", tar, "--tag", tag];
    let imported = system.command(&import).output().expect("the binary can be run");
    assert!(imported.status.success(), "{}", words(&imported));
}

/// A Python that has the library: the one that `scripts/test` made, else one made here.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        #[allow(clippy::disallowed_methods)] // a test's own switch
        if let Ok(given) = env::var("SDK_TEST_PYTHON") {
            return given.into();
        }
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("client-library");
        let python = venv.join("bin/python");
        let list = tree().join("tests/sdk/requirements.txt");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        must(make, "python3 (Debian: python3-venv) cannot make an environment");
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(list);
        must(install, "the client library (PyPI: stacyvm) cannot be installed");
        python
    })
}

fn must(mut command: Command, otherwise: &str) {
    let ended = command.output().unwrap_or_else(|e| panic!("{otherwise}: {e}"));
    assert!(ended.status.success(), "{otherwise}: {}", words(&ended));
}

fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

fn words(ended: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", ended.status, text(&ended.stdout), text(&ended.stderr))
}
