//! The record of a sandbox, as every floor passes it on.

use std::collections::BTreeMap;

use crate::{
    EndedReason, OwnerId, SandboxId, SandboxName, SandboxState, TenantId, Timestamp, WorkerId,
};

/// How large a sandbox is. Zero is never stored: defaults are filled in at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SandboxSize {
    pub memory_mb: u32,
    pub vcpus: u32,
    pub disk_size_mb: u32,
}

/// A sandbox as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: SandboxId,
    pub state: SandboxState,
    pub provider: String,
    /// The image as the caller named it (aliases are resolved by the worker).
    pub image: String,
    pub size: SandboxSize,
    pub owner_id: Option<OwnerId>,
    pub tenant_id: Option<TenantId>,
    /// What its owner calls it: while it lives, no other sandbox of that owner is called so.
    pub name: Option<SandboxName>,
    /// What the worker calls it, where that is not the id itself.
    pub vm_id: Option<String>,
    pub worker_id: WorkerId,
    /// The fencing number of its lease. Never goes down.
    pub generation: u64,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
    pub preview_domain: Option<String>,
    /// Set once the state is `Error`, `Expired`, `Destroying` or `Destroyed`.
    pub ended_reason: Option<EndedReason>,
    /// Whether the spawn was answered. One that was not is destroyed when its server is gone.
    pub answered: bool,
    /// Whether a repeat of its spawn can fetch it, so that it is kept although unanswered. While it
    /// lives this may stay set when its key is forgotten.
    pub keyed: bool,
}
