//! What a worker tells control.

use types::{EndedReason, Fault, SandboxId, WorkerId};

use super::BoxFuture;

/// Who a worker is and what it can take.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    pub worker_id: WorkerId,
    pub hostname: String,
    /// `online` or `draining`.
    pub status: String,
    pub providers: Vec<String>,
    pub capabilities: Vec<String>,
    /// Free-form; placement reads `max_sandboxes`, `rpc_url`, `preview_domain`.
    pub capacity: serde_json::Value,
}

/// A sandbox that ended, or died, without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxEnded {
    pub sandbox_id: SandboxId,
    pub generation: u64,
    pub reason: EndedReason,
    /// Whether all its traces are gone (expired), or it lies there dead until destroyed (crashed).
    pub removed: bool,
}

pub trait ControlLink: Send + Sync {
    fn heartbeat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), Fault>>;

    /// The time of a sandbox is up, and it is ended once this returns: the last moment to ask it
    /// anything. No end waits long for it.
    fn ending(&self, sandbox_id: SandboxId) -> BoxFuture<'_, Result<(), Fault>>;

    /// Facts that nobody asked for. Repeated until it succeeds.
    fn report(&self, ended: Vec<SandboxEnded>) -> BoxFuture<'_, Result<(), Fault>>;
}
