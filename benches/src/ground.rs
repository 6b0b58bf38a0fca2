//! The servers under test and the image they use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Running, System, busybox_rootfs};
use tokio::time::Instant;

use crate::client::Client;

/// The name under which the busybox image is imported.
pub const IMAGE: &str = "busybox";

/// A root file system that all sides use.
pub struct Busybox {
    dir: TempDir,
}

impl Busybox {
    pub fn make() -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-").tempdir();
        let dir = dir.map_err(|e| format!("a temporary folder: {e}"))?;
        busybox_rootfs(dir.path())?;
        Ok(Self { dir })
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn program(&self) -> PathBuf {
        self.dir.path().join("bin/busybox")
    }
}

/// A running `stacyvm serve`. Dropped, it is killed, and whatever it left is removed.
pub struct Ground {
    // In this order: the server first, then what it made.
    running: Option<Running>,
    system: System,
    provider: &'static str,
}

impl Ground {
    /// On the native provider, with the busybox image.
    pub async fn native(busybox: &Busybox) -> Result<Self, String> {
        Self::native_with(busybox, config(json!({"default": "native"}))).await
    }

    /// The same, with so many sandboxes kept ready.
    pub async fn warm(busybox: &Busybox, count: u32) -> Result<Self, String> {
        let mut config = config(json!({"default": "native"}));
        config["defaults"]["image"] = json!(IMAGE);
        config["defaults"]["warm_pool"] = json!(count);
        Self::native_with(busybox, config).await
    }

    async fn native_with(busybox: &Busybox, config: Value) -> Result<Self, String> {
        let system = System::new(config);
        let mut import = system.command(&["image", "import"]);
        import.arg(busybox.root()).args(["--tag", IMAGE]).stdout(Stdio::null());
        succeed(&mut import)?;
        Ok(Self::start(system, "native").await)
    }

    /// On the mock provider: processes that nothing isolates.
    pub async fn mock() -> Self {
        let providers = json!({
            "default": "mock", "mock": {"enabled": true}, "native": {"enabled": false},
        });
        Self::start(System::new(config(providers)), "mock").await
    }

    /// A file on the file system that holds what sandboxes write.
    pub fn on_the_sandboxes_disk(&self, name: &str) -> PathBuf {
        let data = self.system.data_dir();
        let store = data.join("disk/mnt");
        if store.is_dir() { store.join(name) } else { data.join(name) }
    }

    async fn start(mut system: System, provider: &'static str) -> Self {
        let running = system.start().await;
        Self { running: Some(running), system, provider }
    }

    pub fn server(&self) -> &Running {
        self.running.as_ref().expect("it is started again before it is used")
    }

    /// Ends the server, by a signal it may answer to or not, and starts another one. How long that
    /// one took until it was ready: it says so last of all, once everything is adopted.
    pub async fn restart(&mut self, gently: bool) -> Duration {
        let old = self.running.take().expect("it runs");
        match gently {
            true => drop(old.stop().await),
            false => old.kill().await,
        }
        let begun = Instant::now();
        self.running = Some(self.system.start().await);
        begun.elapsed()
    }

    pub async fn client(&self) -> Result<Client, String> {
        Client::connect(self.server().addr()).await
    }

    pub async fn clients(&self, number: usize) -> Result<Vec<Client>, String> {
        let mut all = Vec::with_capacity(number);
        for _ in 0..number {
            all.push(self.client().await?);
        }
        Ok(all)
    }

    /// `stacyvm run` on a configuration and images of its own server.
    pub fn one_shot(&self, words: &[&str]) -> Command {
        let mut command = self.system.command(&["run", "--image", IMAGE, "--"]);
        command.args(words);
        command
    }

    /// The body of a spawn.
    pub fn order(&self) -> String {
        json!({"image": IMAGE, "provider": self.provider, "ttl": "1h"}).to_string()
    }

    /// Stops the server and says what stayed behind.
    pub async fn finish(mut self) -> Result<(), String> {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        let left = self.system.leftovers();
        if left.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = left.iter().take(5).map(ToString::to_string).collect();
        Err(format!("{} things were left behind: {}", left.len(), words.join("; ")))
    }
}

fn config(providers: Value) -> Value {
    json!({
        "providers": providers,
        "defaults": {"ttl": "1h", "max_sandboxes": 100_000, "max_sandboxes_per_owner": 0},
    })
}

/// Runs a command whose output matters only if it fails.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null());
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}
