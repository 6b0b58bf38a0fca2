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
    pub history: HistoryRetention,
    pub images: ImageRetention,
    /// The worker that wins a tie.
    pub local_worker: WorkerId,
}

/// Which records of commands are kept. Zero: all.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryRetention {
    /// After their end.
    pub keep: Duration,
    /// Of a sandbox, the newest so many that belonged to their callers: those with an id that can
    /// be asked for again are kept until their time is over.
    pub per_sandbox: u64,
}

/// Which images are kept. Zero: all.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageRetention {
    /// Those of which no sandbox was made for so long go.
    pub unused_for: Duration,
    /// The ones unused for longest go until the rest is no larger.
    pub bytes: u64,
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
