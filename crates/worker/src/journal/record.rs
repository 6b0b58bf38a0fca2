//! The lines of a journal.

use providers::Runtime;
use serde::{Deserialize, Serialize};
use types::clock::BootTime;
use types::{EndedReason, SandboxId, SandboxSize, Timestamp};

/// Raised when an older release would misread a line; new steps and new keys don't.
pub(crate) const VERSION: u32 = 1;

/// How a line is written.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub v: u32,
    pub step: &'a Step,
}

/// How a line is read: the step of a newer release may be of any shape.
#[derive(Deserialize)]
pub(super) struct RawLine {
    pub v: u32,
    #[serde(default)]
    pub step: serde_json::Value,
}

/// What is about to be done, or was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// A sandbox is going to be made.
    Intent(Intent),
    /// It was made.
    Running { runtime: Runtime },
    /// It ends at another time, or under a newer generation. One of the warm pool was handed out.
    Extended { generation: u64, expires_at: Timestamp, deadline: BootTime },
    /// It was handed out and is back in the warm pool.
    Returned { expires_at: Timestamp, deadline: BootTime },
    /// Its PID 1 is gone; it lies there until it is destroyed.
    Dead { reason: EndedReason },
    /// It is being unmade.
    Destroying { reason: EndedReason },
}

/// The order as far as a later server needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub sandbox_id: SandboxId,
    pub provider: String,
    pub image: String,
    pub size: SandboxSize,
    #[serde(default)]
    pub owner_id: Option<String>,
    pub generation: u64,
    pub installation_id: String,
    /// The deadline counts from the start of this boot of the host.
    pub boot_id: String,
    pub created_at: Timestamp,
    pub started: BootTime,
    pub expires_at: Timestamp,
    pub deadline: BootTime,
    /// It waits in the warm pool: nobody was told of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm: bool,
}
