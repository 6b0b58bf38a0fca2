//! What frames carry: JSON, so that old and new ends understand each other.

use serde::{Deserialize, Serialize};

/// Raised when something changes that an older end would misunderstand; additions don't.
pub const PROTOCOL_VERSION: u32 = 1;

/// Names of what an agent can do, in [`Hello::capabilities`]. Reserved for what comes next:
/// `prepared`, `watch`, `dial`, `freeze`.
pub mod capability {
    pub const EXEC: &str = "exec";
    pub const FILES: &str = "files";
    pub const LOGS: &str = "logs";
    /// A read may name a part of the file.
    pub const READ_RANGE: &str = "read_range";
    /// Whole directories can be packed and unpacked.
    pub const TREES: &str = "trees";
    /// Kills of an exec reach all its descendants, however they detached.
    pub const EXEC_CGROUP: &str = "exec_cgroup";
    /// Detached commands: `Attach`, `Input`, `Kill`, [`super::ExecSpec::detach`].
    pub const ATTACH: &str = "attach";
    /// Terminals: `Resize`, [`super::ExecSpec::tty`].
    pub const TTY: &str = "tty";
    /// [`super::ExecSpec::user`].
    pub const USER: &str = "user";
}

/// The first frame of each side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    pub version: u32,
    /// The oldest version this end still speaks.
    pub min_version: u32,
    pub capabilities: Vec<String>,
    /// The sandbox's id as the agent was told; a server checks that it reached the right one.
    pub sandbox_id: String,
    /// The release of the program, for logs.
    pub build: String,
}

/// What the server asks. One call each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Runs a command. `Event::Started`, then `Data` on `Out` and `Err`, then `End(ExecDone)`.
    /// With `stdin`, `Data` on `Input` until its `Eof`.
    Exec(ExecSpec),
    /// The commands that run or have ended and were not fetched: `End(Execs)`.
    Execs,
    /// Sends a signal (a name without SIG, or a number) to the main process group of an exec; with
    /// a terminal, to its foreground group.
    Signal {
        exec_id: String,
        signal: String,
    },
    /// Kills an exec with all its descendants: `End(Done)`.
    Kill {
        exec_id: String,
    },
    /// The output of a detached exec from `offset` on, counted over both streams: `Data` on `Out`,
    /// `Err` and, for what is no longer held, `Gap`; at last `End(ExecDone)`. First
    /// `Event::Attached`.
    Attach {
        exec_id: String,
        #[serde(default)]
        offset: u64,
        /// Goes on with what comes; else `End(Paused)` where the output ended when asked.
        #[serde(default)]
        follow: bool,
        /// The command goes at the pace of the fastest that hold it.
        #[serde(default)]
        hold: bool,
        /// No output, only the end.
        #[serde(default)]
        quiet: bool,
    },
    /// More stdin for a detached exec: `Data` on `Input` until `Eof`, then `End(Done)` once the
    /// command has taken it.
    Input {
        exec_id: String,
        /// Nothing follows: its stdin ends there.
        #[serde(default)]
        close: bool,
    },
    /// A new size of an exec's terminal: `End(Done)`.
    Resize {
        exec_id: String,
        size: TtySize,
    },
    /// Writes a file atomically: `Data` on `Input` until `Eof`, then `End(Done)`. Parents are
    /// created. Without `mode` an existing file keeps mode and owner, a new one gets 0644.
    Write {
        path: String,
        mode: Option<u32>,
    },
    /// Reads a regular file: `Event::Size` (of the whole file), `Data` on `Out`, `End(Done)`. With
    /// `range` only that part of it; nothing where there is no such part. An agent without
    /// [`capability::READ_RANGE`] sends the whole file.
    Read {
        path: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<ReadRange>,
    },
    /// A directory and all in it: `Data` on `Out` in the form of [`super::TreeEntry`], `End(Done)`.
    Pack {
        path: String,
    },
    /// Writes a tree beneath a directory, which is made where missing: `Data` on `Input` in the same
    /// form until `Eof`, then `End(Done)`. Each file is replaced atomically; what was written when it
    /// breaks off stays.
    Unpack {
        path: String,
    },
    /// The entries of a directory, sorted by name: `Event::Entries` (many), `End(Done)`.
    List {
        path: String,
    },
    /// One file: `End(File)`.
    Stat {
        path: String,
    },
    /// Deletes a file or a directory; a full one only with `recursive`.
    Delete {
        path: String,
        recursive: bool,
    },
    /// Renames; parents of the target are created.
    Move {
        from: String,
        to: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    /// Paths that match a pattern with `*`, `?`, `[…]`, `**`: `Event::Paths` (many), `End(Done)`.
    Glob {
        pattern: String,
    },
    /// The last lines of the console: `End(Lines)`.
    Logs {
        lines: u32,
    },
    /// Adds one line to the console, on behalf of the server.
    Note {
        line: String,
    },
    /// Disk and process numbers: `End(Status)`.
    Status,
    /// A new deadline: nanoseconds of CLOCK_BOOTTIME.
    Deadline {
        boot_nanos: u64,
    },
    /// Ends the agent, and with it the sandbox.
    Shutdown,
    /// Any request this release does not know.
    #[serde(other)]
    Unknown,
}

/// A part of a file, as HTTP says it: from `start` to `end`, both included; without `end` to the end
/// of the file; without `start` the last `end` bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadRange {
    pub start: Option<u64>,
    pub end: Option<u64>,
}

impl ReadRange {
    /// The bytes that are meant of a file of that size; `None` where there are none.
    pub fn of(self, size: u64) -> Option<std::ops::Range<u64>> {
        let range = match (self.start, self.end) {
            (Some(start), Some(end)) => start..end.saturating_add(1).min(size),
            (Some(start), None) => start..size,
            (None, Some(last)) => size.saturating_sub(last)..size,
            (None, None) => 0..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    pub exec_id: String,
    /// The program and its arguments. A program without a slash is looked up in the PATH of `env`.
    pub argv: Vec<String>,
    /// Put on top of the sandbox's own environment.
    pub env: Vec<(String, String)>,
    /// Relative to the default directory, absent for that itself.
    pub cwd: Option<String>,
    /// Ends it after so many milliseconds; absent: with the sandbox.
    pub timeout_ms: Option<u64>,
    /// Whether `Data` on `Input` follows; else stdin is /dev/null.
    pub stdin: bool,
    /// It belongs to no call: its output is held in a ring, a `Cancel` does not end it, its id is
    /// never used again. Without `watch` the call ends once it has started: `End(Done)`.
    pub detach: bool,
    /// The call that starts a detached exec goes on as an `Attach` that holds it.
    pub watch: bool,
    /// A terminal of that size instead of pipes: all output is on `Out`.
    pub tty: Option<TtySize>,
    /// The user to run as: a name of the image or a uid, and a group or gid behind a colon.
    pub user: Option<String>,
    /// Nothing of it is on the console.
    pub quiet: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    pub cols: u16,
    pub rows: u16,
}

/// Something that happens before a call ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Started {
        exec_id: String,
    },
    /// An `Attach` was taken; so much output there was until then.
    Attached {
        total: u64,
    },
    Size {
        bytes: u64,
        mode: u32,
    },
    Entries {
        entries: Vec<FileEntry>,
    },
    Paths {
        paths: Vec<String>,
    },
    #[serde(other)]
    Unknown,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Ok(Body),
    Err(AgentError),
}

/// The result of a call that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Body {
    Done,
    /// All output that there was has been told; the command runs on.
    Paused,
    Exec(ExecDone),
    Execs {
        execs: Vec<ExecInfo>,
    },
    File {
        entry: FileEntry,
    },
    Lines {
        lines: Vec<String>,
    },
    Status(Status),
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecDone {
    /// 128+n for death by signal n; 124 when the deadline ended it.
    pub exit_code: i32,
    pub timed_out: bool,
    pub cancelled: bool,
    pub oom_killed: bool,
    /// The signal that ended the main process; 0 if it exited.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A command the agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecInfo {
    pub exec_id: String,
    pub running: bool,
    pub done: Option<ExecDone>,
    /// It can be attached to.
    pub detached: bool,
    /// Bytes of output so far, of a detached one.
    pub total: u64,
}

/// A file as seen inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileEntry {
    /// Absolute, inside the sandbox.
    pub path: String,
    pub size: u64,
    /// Permission bits only.
    pub mode: u32,
    pub is_dir: bool,
    /// Seconds since the epoch.
    pub mtime: i64,
}

/// Numbers that only the inside knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub disk_bytes: u64,
    pub disk_limit_bytes: u64,
    pub running_execs: u32,
    pub deadline_boot_nanos: u64,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    pub code: AgentErrorCode,
    /// Fit for a client: names paths inside the sandbox only.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentErrorCode {
    BadRequest,
    /// The request is of a newer release.
    Unsupported,
    FileNotFound,
    NotAFile,
    NotADirectory,
    /// A full directory without `recursive`, an exec id that runs already.
    Conflict,
    DiskFull,
    /// No process, descriptor or memory left inside.
    NoResources,
    Denied,
    TooLarge,
    Cancelled,
    Internal,
    /// No command is known under that id.
    NoSuchExec,
    /// The image has no such user or group.
    NoSuchUser,
    #[serde(other)]
    Unknown,
}

/// Bounds that the agent keeps; the spawner hands them over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Output of a command without a connection that is kept for the next one.
    pub ring_bytes: u32,
    /// Lines of the console.
    pub console_bytes: u32,
    /// Commands at once.
    pub max_execs: u32,
    /// Connections at once.
    pub max_connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ring_bytes: 256 << 10, console_bytes: 256 << 10, max_execs: 256, max_connections: 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_words_are_understood_as_unknown() {
        let r: Request = serde_json::from_str(r#"{"op":"fly","to":"moon"}"#).unwrap();
        assert_eq!(r, Request::Unknown);
        let r: Request =
            serde_json::from_str(r#"{"op":"exec","argv":["true"],"colour":"red"}"#).unwrap();
        assert!(matches!(r, Request::Exec(s) if s.argv == ["true"] && !s.stdin));
        let e: Event = serde_json::from_str(r#"{"event":"rain"}"#).unwrap();
        assert_eq!(e, Event::Unknown);
        let c: AgentErrorCode = serde_json::from_str(r#""on_fire""#).unwrap();
        assert_eq!(c, AgentErrorCode::Unknown);
    }

    #[test]
    fn a_range_is_cut_to_its_file() {
        let range = |start, end, size| ReadRange { start, end }.of(size);
        assert_eq!(range(Some(2), Some(4), 10), Some(2..5));
        assert_eq!(range(Some(2), Some(99), 10), Some(2..10));
        assert_eq!(range(Some(9), None, 10), Some(9..10));
        assert_eq!(range(None, Some(3), 10), Some(7..10));
        assert_eq!(range(None, Some(99), 10), Some(0..10));
        assert_eq!(range(Some(0), Some(u64::MAX), u64::MAX), Some(0..u64::MAX));
        for (start, end, size) in [
            (Some(10), None, 10),
            (Some(10), Some(12), 10),
            (Some(5), Some(4), 10),
            (None, Some(0), 10),
            (Some(0), None, 0),
            (None, Some(1), 0),
        ] {
            assert_eq!(range(start, end, size), None, "{start:?} {end:?} {size}");
        }
        let old: Request = serde_json::from_str(r#"{"op":"read","path":"/f"}"#).unwrap();
        assert_eq!(old, Request::Read { path: "/f".into(), range: None });
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"op":"read","path":"/f"}"#);
    }

    #[test]
    fn ends_round_trip() {
        for end in [
            End::Ok(Body::Done),
            End::Ok(Body::Exec(ExecDone {
                exit_code: 137,
                oom_killed: true,
                ..Default::default()
            })),
            End::Err(AgentError { code: AgentErrorCode::DiskFull, message: "full".into() }),
        ] {
            let text = serde_json::to_string(&end).unwrap();
            assert_eq!(serde_json::from_str::<End>(&text).unwrap(), end);
        }
    }
}
