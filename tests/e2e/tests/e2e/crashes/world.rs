//! One installation over many lives of its server, and what the tests do with it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::api::{ExecRequest, ExecResult, Sandbox, SpawnRequest};
use client::{Client, Error, ExecLines};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Process, Running, System, busybox_rootfs, wait_for};

/// More than anything here takes; less than a test may hang.
pub const SOON: Duration = Duration::from_secs(20);
/// The image of native sandboxes here.
pub const IMAGE: &str = "box:1";

/// An installation.
pub struct World {
    pub system: System,
    pub provider: &'static str,
}

impl World {
    /// With an image, if the provider takes images.
    pub fn new(provider: &'static str) -> Self {
        let world = Self::bare(provider);
        if provider == "native" {
            world.import(IMAGE);
        }
        world
    }

    /// Untouched: no command of ours has run on it.
    pub fn bare(provider: &'static str) -> Self {
        let system = System::new(json!({
            "providers": {
                "default": provider,
                "mock": { "enabled": provider == "mock" },
                "native": { "enabled": provider == "native", "pool": 4 },
            },
            "defaults": {
                "image": IMAGE, "memory_mb": 128, "disk_size_mb": 64, "ttl": "10m",
                "max_sandboxes": 60,
            },
        }));
        Self { system, provider }
    }

    /// Makes an image of this machine's busybox.
    pub fn import(&self, name: &str) {
        let root = tempfile::tempdir().unwrap();
        busybox_rootfs(root.path()).unwrap();
        let path = root.path().to_str().expect("temporary folders have plain names");
        let done = self.system.command(&["image", "import", path, "--tag", name]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub async fn start(&mut self) -> Server {
        let running = self.system.start().await;
        let client = running.client();
        Server { running, client }
    }

    /// A server that ends at that step, or, with `step@file`, waits there.
    pub fn launch_with(&mut self, failpoint: &str) -> Running {
        self.system.env("STACYVM_FAILPOINT", failpoint);
        let running = self.system.launch();
        self.system.unset_env("STACYVM_FAILPOINT");
        running
    }

    /// As [`World::start`], for steps that come later.
    pub async fn start_with(&mut self, failpoint: &str) -> Server {
        self.system.env("STACYVM_FAILPOINT", failpoint);
        let server = self.start().await;
        self.system.unset_env("STACYVM_FAILPOINT");
        server
    }

    /// A folder that is not the server's.
    pub fn config_dir(&self) -> PathBuf {
        self.system.config_file().with_file_name("")
    }

    /// Where the sandboxes' folders are.
    pub fn folders(&self) -> PathBuf {
        self.system.data_dir().join("workers/local/sandboxes")
    }

    /// The first process of a sandbox, as its journal names it.
    pub fn agent_of(&self, id: &str) -> Process {
        let journal = std::fs::read_to_string(self.folders().join(id).join("journal")).unwrap();
        let made = journal.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let mut pids =
            made.filter_map(|l| l["step"]["running"]["runtime"]["facts"]["made"]["pid"].as_u64());
        let pid = pids.next().unwrap_or_else(|| panic!("no process in {journal}"));
        Process::of(u32::try_from(pid).unwrap()).expect("it lives")
    }

    /// Waits until nothing of the installation is on the host; its server has ended.
    pub async fn assert_nothing_left(&self) {
        wait_for("nothing to be left over", SOON, async || match self.system.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.iter().map(|l| format!("{l}\n")).collect::<String>()),
        })
        .await;
        let folders = names(&self.folders());
        assert!(folders.is_empty(), "folders of sandboxes are left: {folders:?}");
    }
}

/// A server that answers.
pub struct Server {
    pub running: Running,
    pub client: Client,
}

impl Server {
    pub async fn spawn(&self) -> String {
        self.spawn_for("10m").await.id
    }

    pub async fn spawn_for(&self, ttl: &str) -> Sandbox {
        self.spawn_as(SpawnRequest { ttl: Some(ttl.to_owned()), ..SpawnRequest::default() }).await
    }

    pub async fn spawn_as(&self, request: SpawnRequest) -> Sandbox {
        in_time("a spawn", self.client.spawn(&request)).await.unwrap_or_else(|e| self.fail(&e))
    }

    /// Runs a script to its end.
    pub async fn sh(&self, id: &str, script: &str) -> ExecResult {
        let done = in_time("an exec", self.client.exec(id, &shell(script))).await;
        done.unwrap_or_else(|e| self.fail(&e))
    }

    /// What a script that succeeds says.
    pub async fn said(&self, id: &str, script: &str) -> String {
        let done = self.sh(id, script).await;
        assert_eq!(done.exit_code, 0, "{script}: {}{}", done.stdout, done.stderr);
        done.stdout.trim_end().to_owned()
    }

    pub async fn stream(&self, id: &str, script: &str) -> ExecLines {
        let begun = in_time("a stream", self.client.exec_stream(id, &shell(script))).await;
        begun.unwrap_or_else(|e| self.fail(&e))
    }

    pub async fn destroy(&self, id: &str) {
        let done = in_time("a destroy", self.client.destroy(id, None)).await;
        let done = done.unwrap_or_else(|e| self.fail(&e));
        assert_eq!(done.status, "destroyed");
    }

    /// The ids of all that live, sorted.
    pub async fn ids(&self) -> Result<Vec<String>, Error> {
        let mut ids: Vec<_> = self.client.list().await?.into_iter().map(|s| s.id).collect();
        ids.sort();
        Ok(ids)
    }

    /// The process that makes sandboxes.
    pub fn spawner(&self) -> Process {
        let mut children = Process::children_of(self.running.pid());
        assert_eq!(children.len(), 1, "a server has one helper: {children:?}");
        children.remove(0)
    }

    pub async fn kill(self) {
        let spawner = self.spawner();
        self.running.kill().await;
        gone("the spawner", &spawner).await;
    }

    pub async fn stop(self) {
        let spawner = self.spawner();
        assert_eq!(self.running.stop().await.code(), Some(0));
        assert!(!spawner.is_alive(), "the spawner outlives its server");
    }

    pub async fn end_by(self, signal: Signal) {
        match signal {
            Signal::KILL => self.kill().await,
            _ => self.stop().await,
        }
    }

    /// Fails the test, with what the server logged.
    fn fail<T>(&self, error: &Error) -> T {
        panic!("{error} ({:?})\n{}", error.code(), self.running.log());
    }
}

pub fn shell(script: &str) -> ExecRequest {
    ExecRequest { command: Some(script.to_owned()), ..ExecRequest::default() }
}

/// Fails the test when something takes too long.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(SOON, work).await;
    done.unwrap_or_else(|_| panic!("{what} takes longer than {SOON:?}"))
}

/// Waits for the end of a process.
pub async fn gone(what: &str, process: &Process) {
    wait_for(&format!("{what} to end"), SOON, async || match process.is_alive() {
        false => Ok(()),
        true => Err(format!("process {} lives", process.pid)),
    })
    .await;
}

/// Waits for a program with these very words.
pub async fn running(words: &[&str]) -> Process {
    wait_for("a program to run", SOON, async || Process::running(words).ok_or("it does not")).await
}

/// The names in a folder, sorted; none if it is not there.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}
