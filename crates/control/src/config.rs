//! What control is told at its birth, and who is asking.

use std::time::Duration;

use types::{OwnerId, TenantId, WorkerId};

#[derive(Debug, Clone)]
pub struct ControlConfig {
    pub defaults: Defaults,
    /// Bound of each captured stream; what is above is drained and forgotten.
    pub max_output_bytes: usize,
    /// For sandboxes whose worker announces none of its own.
    pub preview_domain: Option<String>,
    /// How long destroyed sandboxes are remembered. Zero: for ever.
    pub record_retention: Duration,
    /// The worker that wins a tie.
    pub local_worker: WorkerId,
}

/// What a spawn gets when it does not ask, and the bounds of what it may ask. Zero: no bound.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub provider: String,
    pub image: String,
    pub ttl: Duration,
    pub max_ttl: Duration,
    pub memory_mb: u32,
    pub vcpus: u32,
    pub disk_size_mb: u32,
    pub default_exec_timeout: Duration,
    pub max_exec_timeout: Duration,
    pub max_sandboxes: u64,
    pub max_sandboxes_per_owner: u64,
}

/// Who asks. Without a tenant, everything is seen.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub tenant: Option<TenantId>,
    /// From `X-User-ID`; wins over an owner named in a body.
    pub owner: Option<OwnerId>,
}
