//! What a provider writes into the journal about a sandbox it made.

use protocol::spawner::Made;
use serde::{Deserialize, Serialize};
use types::Fault;

use super::ProcessId;
use crate::Runtime;

/// Additions need a default: journals of older releases are read as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub made: Made,
    /// The boot of the host in which it was made.
    pub boot_id: String,
    #[serde(default)]
    pub writable: Writable,
    /// The limit of its cgroup.
    #[serde(default)]
    pub memory_limit_bytes: u64,
    /// The deadline its agent was born with; later ones the agent alone knows.
    #[serde(default)]
    pub deadline_boot_nanos: u64,
}

/// Where its writable layer is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Writable {
    /// A tmpfs that ends with it.
    #[default]
    Tmpfs,
    /// A subvolume of the disk store.
    Disk { name: String },
    /// The directory `root` in its own folder.
    Directory,
}

impl Facts {
    pub fn of(runtime: &Runtime) -> Result<Self, Fault> {
        serde_json::from_value(runtime.facts.clone())
            .map_err(|e| Fault::internal("the journal of this sandbox can't be read").caused_by(e))
    }

    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.made.pid, start_time: self.made.start_time }
    }
}
