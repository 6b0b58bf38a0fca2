//! What the agent is told when it starts.

use std::os::fd::OwnedFd;

use protocol::agent::Limits;

/// What the agent is told when it starts.
#[derive(Debug)]
pub struct Config {
    pub sandbox_id: String,
    /// A bound, listening SOCK_STREAM Unix socket.
    pub listener: OwnedFd,
    /// The directory that is `/` for file operations and commands: an O_PATH descriptor. Inside
    /// namespaces it is the real `/`; for the mock provider a plain host directory.
    pub root: OwnedFd,
    /// For the mock provider: the host path of that directory, put before absolute directories
    /// when a command is started. Empty inside namespaces.
    pub root_prefix: String,
    /// `KEY=value`: all that commands see, before their own.
    pub env: Vec<String>,
    /// As whom commands run that name nobody, and whose new files are: `USER` of the image.
    pub user: Option<String>,
    /// Where commands start; created if missing.
    pub workdir: String,
    /// Nanoseconds of CLOCK_BOOTTIME at which the agent ends; 0 never.
    pub deadline_boot_nanos: u64,
    /// A cgroup v2 directory of this sandbox, writable: each exec gets a child of its own, so that
    /// a kill reaches all its descendants. `None`: a subreaper process per exec does that.
    pub cgroup: Option<OwnedFd>,
    /// `memory.oom_control` (v1) or `memory.events` (v2): tells an OOM kill from another.
    pub oom_events: Option<OwnedFd>,
    /// The agent ends when this pipe's other end closes.
    pub tied_to: Option<OwnedFd>,
    /// Raised in commands, so that the kernel picks them and not the agent.
    pub oom_score_adj: i32,
    pub limits: Limits,
}
