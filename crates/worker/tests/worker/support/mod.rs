//! A worker with all that it needs, in memory but for its folder.

mod agent;
mod control;
mod provider;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::worker::{
    ExecEvent, ExecExit, ExecOrder, ExecStream, LeaseToken, SpawnOrder, Stdin, WorkerLink,
};
use types::clock::{Clock, ManualClock};
use types::{EndedReason, ExecId, Fault, SandboxId, SandboxSize, Timestamp, WorkerId};
use worker::{Providers, Worker, WorkerConfig};

pub use agent::Lie;
pub use control::FakeControl;
pub use provider::{FakeProvider, Step};

/// Long enough for a loaded machine; a test that hangs ends here.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A worker and its surroundings. The provider's sandboxes outlive the worker.
pub struct World {
    _dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub provider: Arc<FakeProvider>,
    pub control: Arc<FakeControl>,
    pub config: WorkerConfig,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = WorkerId::parse("w1").unwrap();
        let mut config = WorkerConfig::new(id, dir.path().join("w1"), "here");
        config.boot_id = Some("boot-1".to_owned());
        let wall = Timestamp::parse("2026-02-01T00:00:00Z").unwrap();
        Self {
            _dir: dir,
            clock: Arc::new(ManualClock::new(wall)),
            provider: FakeProvider::new(),
            control: Arc::default(),
            config,
        }
    }

    pub async fn try_start(&self) -> Result<Arc<Worker>, Fault> {
        let providers = Providers::new(vec![self.provider.clone()], "fake");
        let (control, clock) = (self.control.clone(), self.clock.clone());
        Worker::start(self.config.clone(), providers, control, clock).await
    }

    pub async fn start(&self) -> Arc<Worker> {
        self.try_start().await.unwrap()
    }

    pub fn lease(&self, id: &SandboxId, generation: u64) -> LeaseToken {
        LeaseToken {
            resource_id: id.clone(),
            holder_id: self.config.id.clone(),
            generation,
            expires_at: self.clock.wall().saturating_add(Duration::from_secs(60)),
        }
    }

    pub fn order(&self, id: &SandboxId) -> SpawnOrder {
        SpawnOrder {
            sandbox_id: id.clone(),
            lease: self.lease(id, 1),
            provider: "fake".to_owned(),
            image: "host".to_owned(),
            size: SandboxSize { memory_mb: 64, vcpus: 1, disk_size_mb: 64 },
            owner_id: None,
            expires_at: self.clock.wall().saturating_add(Duration::from_secs(600)),
            metadata: Default::default(),
        }
    }

    pub fn folder(&self, id: &SandboxId) -> PathBuf {
        self.config.dir.join("sandboxes").join(id.as_str())
    }

    /// Spawns a sandbox that has to succeed.
    pub async fn spawn(&self, worker: &Worker, n: u16) -> SandboxId {
        let id = id(n);
        worker.spawn(self.order(&id)).await.unwrap();
        id
    }

    pub async fn destroy(&self, worker: &Worker, id: &SandboxId) -> Result<(), Fault> {
        let lease = self.lease(id, 1);
        worker.destroy(id.clone(), lease, EndedReason::Destroyed, None).await
    }

    /// Nothing of the sandbox is left anywhere.
    pub fn assert_gone(&self, id: &SandboxId) {
        assert!(!self.folder(id).exists(), "its folder is left");
        assert!(!self.provider.has(id), "the provider still has it");
    }
}

pub fn id(n: u16) -> SandboxId {
    // Five bits of each byte count.
    let mut bytes = [0; 20];
    for (byte, shift) in bytes.iter_mut().zip([0, 5, 10]) {
        *byte = ((n >> shift) & 31) as u8;
    }
    SandboxId::from_random(bytes)
}

pub fn command(id: &SandboxId, argv: &[&str]) -> ExecOrder {
    ExecOrder {
        sandbox_id: id.clone(),
        exec_id: ExecId::parse("ex-1").unwrap(),
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        env: Default::default(),
        workdir: None,
        timeout: None,
        user: None,
        tty: None,
        detach: false,
    }
}

/// The output of a command, and how it ended.
pub async fn collect(mut stream: ExecStream) -> (Vec<u8>, Result<ExecExit, Fault>) {
    let mut output = Vec::new();
    let all = async {
        while let Some(event) = stream.next().await {
            match event {
                Ok(ExecEvent::Output { data, .. }) => output.extend_from_slice(&data),
                Ok(other @ (ExecEvent::Gap { .. } | ExecEvent::Paused)) => panic!("{other:?}"),
                Ok(ExecEvent::Exit(exit)) => {
                    assert!(stream.next().await.is_none(), "something comes after the exit");
                    return Ok(exit);
                }
                Err(fault) => {
                    assert!(stream.next().await.is_none(), "something comes after the error");
                    return Err(fault);
                }
            }
        }
        panic!("the stream ended without an exit or an error");
    };
    let end = within("the end of a command", all).await;
    (output, end)
}

pub async fn run(
    worker: &Worker,
    id: &SandboxId,
    argv: &[&str],
) -> (Vec<u8>, Result<ExecExit, Fault>) {
    collect(worker.exec(command(id, argv), Stdin::Empty).await.unwrap()).await
}

/// Waits for a future, not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("timed out: {what}"),
    }
}

/// Polls until `seen` has a value.
pub async fn wait_for<T>(what: &str, mut seen: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = seen().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, poll).await
}

/// Waits until control has taken the news of a sandbox's end, and the worker remembers nothing.
pub async fn forgotten(worker: &Worker, id: &SandboxId) {
    let ask = async || worker.status(id.clone()).await.unwrap().is_none().then_some(());
    wait_for("the end of a sandbox to be taken", ask).await;
}
