//! What is asked of a worker and what it answers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

pub use crate::agent::TtySize;
pub use bytes::Bytes;
use futures_core::Stream;

pub use crate::agent::ReadRange;
use types::{
    EndedReason, ExecId, Fault, SandboxId, SandboxSize, SandboxState, Timestamp, WorkerId,
};

/// Proof of ownership that rides with every mutation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeaseToken {
    pub resource_id: SandboxId,
    pub holder_id: WorkerId,
    pub generation: u64,
    pub expires_at: Timestamp,
}

/// Bytes that arrive over time; a `Fault` ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// A sandbox to make.
#[derive(Debug, Clone)]
pub struct SpawnOrder {
    pub sandbox_id: SandboxId,
    pub lease: LeaseToken,
    pub provider: String,
    pub image: String,
    pub size: SandboxSize,
    pub owner_id: Option<String>,
    pub expires_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
}

/// A sandbox that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawned {
    /// What the worker calls it, where that is not the sandbox's id.
    pub runtime_id: Option<String>,
}

/// What a worker knows of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFact {
    pub sandbox_id: SandboxId,
    pub provider: String,
    /// `Running`, `Error` (its PID 1 is gone) or `Destroyed`.
    pub state: SandboxState,
    pub reason: Option<EndedReason>,
    pub generation: u64,
    pub expires_at: Timestamp,
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct ExecOrder {
    pub sandbox_id: SandboxId,
    pub exec_id: ExecId,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    /// `None`: ends with its sandbox.
    pub timeout: Option<Duration>,
    /// A name or uid of the image; `None`: the sandbox's own.
    pub user: Option<String>,
    /// A terminal of that size; its output is all `Stdout`.
    pub tty: Option<TtySize>,
    /// It outlives whoever started it, and can be attached to by its id.
    pub detach: bool,
}

/// What a command reads.
pub enum Stdin {
    /// Nothing.
    Empty,
    /// What others send later; for detached commands.
    Open,
    /// These bytes, as the command takes them; their end, and a break of them, are its end of file.
    Stream(ByteStream),
}

/// The output of a detached command, from `offset` on.
#[derive(Debug, Clone)]
pub struct AttachOrder {
    pub sandbox_id: SandboxId,
    pub exec_id: ExecId,
    /// Counted over both streams as they arrived.
    pub offset: u64,
    /// Goes on with what comes; else ends with [`ExecEvent::Paused`] where the output then is.
    pub follow: bool,
    /// The command goes at the pace of the fastest that hold it.
    pub hold: bool,
}

/// What is done to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecControl {
    /// Sends a signal to its process group, or the foreground group of its terminal.
    Signal(i32),
    /// Kills it and all that descends from it.
    Kill,
    /// A new size of its terminal.
    Resize(TtySize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// What comes out of a command. `Exit` is the last; without it the stream broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    Output {
        stream: OutputStream,
        data: Bytes,
    },
    /// So many bytes of output are not held any more. To those that attached only.
    Gap {
        lost: u64,
    },
    /// All there was has been told; the command runs on. To those that do not follow only.
    Paused,
    Exit(ExecExit),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecExit {
    pub exit_code: i32,
    pub timed_out: bool,
    pub oom_killed: bool,
    /// The signal that ended the main process; 0 if it exited.
    pub signal: i32,
}

/// The output of a started command. Dropping it cancels the command and all its descendants,
/// unless it is detached. Pulling slowly slows the command down: nothing is buffered without bound.
pub type ExecStream = Pin<Box<dyn Stream<Item = Result<ExecEvent, Fault>> + Send>>;

/// How an archive is written: a tar, plain or in one of two compressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    Tar,
    Gzip,
    Zstd,
}

/// Something done to files inside a sandbox. Paths are as the client wrote them.
pub enum FileOp {
    Write {
        path: String,
        mode: Option<u32>,
        content: ByteStream,
    },
    /// With `range`, that part of it; nothing where there is no such part.
    Read {
        path: String,
        range: Option<ReadRange>,
    },
    /// A directory and all in it, as an archive.
    Pack {
        path: String,
        format: ArchiveFormat,
    },
    /// Writes what an archive holds beneath a directory; without a format it is told from the
    /// first bytes.
    Unpack {
        path: String,
        format: Option<ArchiveFormat>,
        content: ByteStream,
    },
    List {
        path: String,
    },
    Stat {
        path: String,
    },
    Delete {
        path: String,
        recursive: bool,
    },
    Move {
        from: String,
        to: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Glob {
        pattern: String,
    },
}

pub enum FileReply {
    Done,
    /// `size`: of the whole file, whatever part of it the content is.
    Content {
        size: u64,
        content: ByteStream,
    },
    Archive(ByteStream),
    Entries(Vec<FileInfo>),
    File(FileInfo),
    Paths(Vec<String>),
}

/// A file inside a sandbox: absolute path, permission bits, whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    pub path: String,
    pub size: u64,
    pub mode: u32,
    pub is_dir: bool,
    pub modified: Timestamp,
}

/// Use of resources. `None`: this provider can't tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsReport {
    pub cpu_pct: Option<f64>,
    pub cpu_usage: Option<Duration>,
    pub memory_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub disk_limit_bytes: Option<u64>,
}

/// A provider as its worker sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderReport {
    pub name: String,
    pub healthy: bool,
    pub default: bool,
    pub latency: Duration,
    pub checked_at: Timestamp,
    /// Fit for clients.
    pub error: Option<String>,
    pub capabilities: Vec<String>,
    /// Facts for `GET /providers/{name}`; no host path.
    pub config: BTreeMap<String, String>,
}
