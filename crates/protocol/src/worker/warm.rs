//! The warm pool of a worker: sandboxes that are made before anybody asks for them.

use std::time::Duration;

use types::{SandboxSize, Timestamp};

/// What a sandbox that is there already has to be like, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmOrder {
    pub provider: String,
    pub image: String,
    pub size: SandboxSize,
    pub generation: u64,
    pub expires_at: Timestamp,
}

/// One pool, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmPoolReport {
    pub provider: String,
    pub image: String,
    pub size: SandboxSize,
    /// How many it keeps.
    pub desired: u64,
    /// How many wait to be handed out.
    pub ready: u64,
    /// Handed out since the worker started.
    pub taken: u64,
    /// What those that wait hold of the host's memory.
    pub memory_bytes: u64,
    /// After this one that waits is replaced.
    pub max_age: Duration,
    /// Why it is not full, where that is not just a matter of time. Fit for clients.
    pub held_up: Option<String>,
}
