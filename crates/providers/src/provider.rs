//! The contract of a provider.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use protocol::worker::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use types::clock::BootTime;
use types::{EndedReason, Fault, SandboxId, SandboxSize};

use crate::AgentSocket;
use crate::images::ImageStore;

/// A byte stream to the agent of one sandbox.
pub trait AgentIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentIo for T {}
pub type AgentStream = Box<dyn AgentIo>;

/// An image that can be used at once: resolved, unpacked, shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreparedImage {
    /// What the caller's name was resolved to: `host`, or a digest.
    pub resolved: String,
    /// Layer names under the image store, topmost first.
    pub layers: Vec<String>,
    /// Host directories shown read-only at the same place (the image `host`).
    pub binds: Vec<String>,
    /// `KEY=value` of the image.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
}

/// A sandbox to make.
#[derive(Debug)]
pub struct CreateSpec {
    pub id: SandboxId,
    /// The sandbox's own folder, made by the worker and removed by it after `destroy`.
    /// The provider may put its socket and files there.
    pub dir: PathBuf,
    /// A socket that lies in that folder already; without one the provider makes its own.
    pub socket: Option<AgentSocket>,
    pub image: PreparedImage,
    pub size: SandboxSize,
    /// When the agent ends by itself, if nobody comes back.
    pub deadline: BootTime,
    /// The sandbox ends with this process (`stacyvm run`).
    pub tied: bool,
}

/// A sandbox that was made. Written to the journal: a later server adopts with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    pub id: SandboxId,
    pub dir: PathBuf,
    /// The provider's own facts (process, cgroups, slot, writable layer …).
    pub facts: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    /// Its PID 1 is gone; what it left is still there until `destroy`.
    Dead(EndedReason),
    /// Nothing of it is left.
    Gone,
}

/// Use of resources as the host sees it. `None`: this provider can't tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderStats {
    pub cpu_usage: Option<Duration>,
    pub memory_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub disk_limit_bytes: Option<u64>,
}

/// Makes and unmakes sandboxes of one kind.
///
/// Faults are fit for clients: no host path. Every call may be repeated.
pub trait Provider: Send + Sync {
    /// The name in requests and records.
    fn name(&self) -> &'static str;

    /// What is enforced: `memory_limit`, `cpu_limit`,
    /// `pids_limit`, `disk_limit`, `uid_range`.
    fn capabilities(&self) -> Vec<String>;

    /// Facts for `GET /providers/{name}`; no host path.
    fn config(&self) -> BTreeMap<String, String>;

    /// Whether it can make a sandbox now. Cheap.
    fn probe(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Resolves an image and has it ready. `ImageNotFound` names the ways out.
    fn prepare(&self, image: &str) -> BoxFuture<'_, Result<PreparedImage, Fault>>;

    /// As `prepare`, of an image that need not be fetched: `None` says that it would have to be, or
    /// that there is none.
    fn prepared<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Option<PreparedImage>>;

    /// Makes a sandbox whose agent listens when this returns. On failure nothing is left.
    fn create(&self, spec: CreateSpec) -> BoxFuture<'_, Result<Runtime, Fault>>;

    /// Opens a stream to the agent.
    fn connect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<AgentStream, Fault>>;

    fn inspect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<Liveness, Fault>>;

    /// Takes a sandbox of an earlier process into account (its slot, its limits): it lives.
    fn adopt<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<(), Fault>>;

    /// Waits until its PID 1 is gone, and says why. Costs at most one descriptor.
    fn wait(&self, runtime: &Runtime) -> BoxFuture<'static, EndedReason>;

    /// Ends it and removes everything but its folder: processes, mounts, cgroups, writable layer.
    /// Returns when no process of it runs any more; slow removals may go on in the background, and
    /// `sweep` finds what they did not reach. `runtime` is `None` if `create` was never answered:
    /// then everything is found by the id.
    fn destroy<'a>(
        &'a self,
        id: &'a SandboxId,
        runtime: Option<&'a Runtime>,
    ) -> BoxFuture<'a, Result<(), Fault>>;

    fn stats<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<ProviderStats, Fault>>;

    /// Removes whatever this installation left behind that belongs to none of `known`. Returns how
    /// many sandboxes' remains it found.
    fn sweep<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Result<usize, Fault>>;

    /// The images it makes sandboxes from, if it stores them itself.
    fn images(&self) -> Option<&ImageStore> {
        None
    }

    /// Ends what this process runs for the provider and gives back what no sandbox uses. Sandboxes
    /// live on. Afterwards nothing else is called.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
