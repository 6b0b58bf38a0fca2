//! The life of a command, from its request to its end.

mod ending;
mod input;
mod logs;
mod start;
mod streams;

pub(crate) use logs::How;

/// Said of an id that nobody knows.
pub(super) const NO_COMMAND: &str = "no command is known under that id";
/// How long children that hold the pipes are waited for once the command itself has exited.
pub(crate) const GRACE_NANOS: u64 = 100_000_000;
/// A command that is over sooner needs no `oom_score_adj`; one that is not has done its execve.
const OOM_AFTER_NANOS: u64 = 1_000_000;
