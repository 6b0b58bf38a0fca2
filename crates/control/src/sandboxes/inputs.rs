//! What callers ask for, parsed but not yet judged.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::worker::{Bytes, TtySize};
use types::{ExecId, OwnerId, SandboxName};

/// A sandbox to spawn. `None`, and 0 for a size, mean the default.
#[derive(Debug, Clone, Default)]
pub struct SpawnInput {
    pub image: Option<String>,
    pub provider: Option<String>,
    pub memory_mb: Option<u32>,
    pub vcpus: Option<u32>,
    pub disk_size_mb: Option<u32>,
    pub ttl: Option<Duration>,
    /// The owner in the body; the one in the context wins.
    pub owner: Option<OwnerId>,
    pub metadata: BTreeMap<String, String>,
    /// A living sandbox of that name and owner is the answer instead of a second one.
    pub name: Option<SandboxName>,
    /// A repeat with the same key gets the same answer.
    pub key: Option<RepeatKey>,
}

/// What an `Idempotency-Key` says, as digests: of the caller with the key, and of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatKey {
    pub key: String,
    pub request: String,
}

/// How a command is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExecMode {
    /// The command is a text for `sh -c`; args are literal words after it.
    #[default]
    Shell,
    /// The command is a program, args are its arguments; no shell.
    Argv,
}

/// A command to run.
#[derive(Debug, Clone, Default)]
pub struct ExecInput {
    pub command: String,
    pub args: Vec<String>,
    pub mode: ExecMode,
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    /// `None`: absent or zero.
    pub timeout: Option<Duration>,
    /// A name or uid of the image; `None`: the sandbox's own.
    pub user: Option<String>,
    /// What it reads; `None`: nothing.
    pub stdin: Option<Bytes>,
    /// Chosen by the caller: asked for again, the command does not run again.
    pub exec_id: Option<ExecId>,
    /// A terminal of that size.
    pub tty: Option<TtySize>,
}
