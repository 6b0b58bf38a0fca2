//! The words of the system: ids, states, durations, sizes, error codes, clocks and REST bodies.
//!
//! No I/O beyond reading a clock, no business rules; every other crate may depend on this one.

pub mod api;
pub mod clock;
mod code;
pub mod duration;
pub mod failpoint;
mod id;
mod sandbox;
mod secret;
pub mod signal;
mod state;
mod timestamp;

pub use code::{ErrorCode, Fault};
pub use id::{ExecId, InvalidId, OwnerId, SandboxId, TenantId, WorkerId};
pub use sandbox::{Sandbox, SandboxSize};
pub use secret::Secret;
pub use state::{EndedReason, SandboxState};
pub use timestamp::Timestamp;
