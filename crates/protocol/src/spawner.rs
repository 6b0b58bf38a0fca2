//! What the native and mock providers and their spawner process say to each other.
//!
//! Both ends come from one build, so there are no versions here. Messages are JSON, one per
//! SOCK_SEQPACKET datagram of at most [`MAX_MESSAGE`] bytes; descriptors ride along where a message
//! says so. Answers carry the number of the question; they may come out of order.

use serde::{Deserialize, Serialize};

use crate::agent::Limits;

pub const MAX_MESSAGE: usize = 64 * 1024;

/// The folders of a host's programs and libraries: what the image `host` shows, where they are
/// directories.
pub const HOST_PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The first datagram the spawner gets, before any order. It answers with `Reply::Ready` or
/// `Reply::Failed` under number 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// Where the image layers and skeletons lie on the host; seen by children as `/layers`.
    pub layers_dir: String,
    /// Where sandboxes' folders lie on the host (sockets).
    pub sandboxes_dir: String,
    /// The disk store's mount point on the host, if there is one; seen as `/disk`.
    pub disk_dir: Option<String>,
    /// cgroup directories under which each sandbox gets one of its own, by hierarchy.
    pub cgroups: Cgroups,
    /// First host uid of the ranges this spawner hands out, and how many ranges of 65536 ids;
    /// `None` when rootless.
    pub uid_ranges: Option<UidRanges>,
    /// Prepared slots (user and network namespaces, cgroups) to keep at hand.
    pub pool: u32,
    /// Sandboxes are made without namespaces (the mock provider).
    pub unconfined: bool,
    /// Slots that sandboxes of an earlier spawner hold: not to be handed out until released.
    pub used_slots: Vec<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRanges {
    pub first: u32,
    pub count: u32,
}

/// Absolute host paths; absent where the hierarchy or the right to write it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroups {
    /// v2, with controllers (unified) or without (hybrid, for kill and freeze).
    pub v2: Option<String>,
    /// Whether limits are set on v2.
    pub v2_limits: bool,
    pub v1_memory: Option<String>,
    pub v1_cpu: Option<String>,
    pub v1_pids: Option<String>,
}

/// A question to the spawner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Makes a sandbox. One descriptor rides along: the listening socket of its agent.
    /// A second one, where `dies_with_fd`: a pipe whose end ends the sandbox.
    Spawn(Box<SpawnSpec>),
    /// Gives the slot of an ended sandbox back: kills what is left in its cgroups and removes them.
    Release { id: String, slot: Option<u32> },
    /// A sandbox of an earlier spawner lives on: its slot is in use until it is released. Answered
    /// with `Reply::Adopted`.
    Adopt { id: String, slot: Option<u32> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered<T> {
    pub n: u64,
    #[serde(flatten)]
    pub body: T,
}

/// A sandbox to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpawnSpec {
    pub id: String,
    pub hostname: String,
    pub root: Root,
    /// `KEY=value`; PATH and HOME of the image are among them.
    pub env: Vec<String>,
    /// As whom execs run that name nobody: `USER` of the image; root without.
    pub user: Option<String>,
    /// Where execs start, created if missing.
    pub workdir: String,
    pub memory_bytes: u64,
    pub cpu_millis: u32,
    pub pids: u32,
    /// When the agent ends by itself: nanoseconds of CLOCK_BOOTTIME; 0 never.
    pub deadline_boot_nanos: u64,
    pub limits: Limits,
    pub dies_with_fd: bool,
    /// Take this uid range and no other (tests); normally the spawner chooses.
    pub slot: Option<u32>,
}

/// Where a sandbox's files come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Root {
    /// Read-only layers (names under `/layers`, topmost first) below a writable one.
    Overlay {
        layers: Vec<String>,
        /// Host directories shown read-only at the same place inside (`/usr` of the image `host`).
        binds: Vec<String>,
        upper: Upper,
    },
    /// A plain host directory, no namespaces (the mock provider).
    Directory { path: String },
}

impl Default for Root {
    fn default() -> Self {
        Self::Directory { path: String::new() }
    }
}

/// The writable layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Upper {
    /// A tmpfs of its own.
    Tmpfs { bytes: u64, inodes: u64 },
    /// A directory under `/disk` with a limit of its own, made by the provider.
    Disk { name: String },
}

/// The spawner's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    Ready { facts: HostFacts },
    Spawned { made: Made },
    Released,
    Adopted,
    Failed { stage: String, errno: i32 },
}

/// What the spawner found it can do, for capabilities and `doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    pub uid_range: bool,
    pub memory_limit: bool,
    pub cpu_limit: bool,
    pub pids_limit: bool,
    pub cgroup_kill: bool,
}

/// What was made; goes into the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Made {
    /// PID 1 of the sandbox, as the host sees it.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with `pid` it names the process for good.
    pub start_time: u64,
    pub slot: Option<u32>,
}
