//! The warm pool: sandboxes that are made before anybody asks for them.
//!
//! ```text
//! refill: make ──> ready ──take──> handed out (lent, until control records it) ──> as any other
//!                    │  ^                │
//!                    │  └───return───────┘ nobody used it
//!                    └──> too old, dead, of an image that moved: destroyed, never handed out
//! ```
//!
//! One that was handed out and used never comes back. What waits in the pool is in no inventory:
//! control does not know of it. A worker that stops destroys it; after a crash the next start does.

mod refill;
mod shelves;
mod take;

use std::time::Duration;

use types::SandboxSize;

pub(crate) use refill::run;
pub(crate) use shelves::Pool;
pub(crate) use take::Warmth;

/// One pool: sandboxes of one image and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmPool {
    /// Empty: the default one.
    pub provider: String,
    pub image: String,
    pub size: SandboxSize,
    /// How many wait to be handed out.
    pub count: usize,
}

/// The pools of a worker, and what bounds them.
#[derive(Debug, Clone, Default)]
pub struct WarmConfig {
    pub pools: Vec<WarmPool>,
    /// One that waited so long is replaced.
    pub max_age: Duration,
    /// What all that wait may hold of the host's memory, together.
    pub memory_bytes: u64,
}
