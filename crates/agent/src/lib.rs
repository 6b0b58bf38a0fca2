//! The program inside a sandbox: its PID 1. Runs commands, reads and writes files, reaps, and
//! speaks the agent protocol on every connection it accepts.
//!
//! Single-threaded, no async runtime, small: the spawner links it and forks straight into
//! [`serve`]. Only the program is here; the client to it lives in `worker/guest`.
//!
//! The floor plan: `server` is the epoll loop and owns everything; `connection` and `outbox` cut
//! and build frames; `dispatch` turns requests into work; `exec` runs commands; `files` does the
//! file operations, the long ones as jobs in slices; `console` keeps the last lines.

mod config;
mod connection;
mod console;
mod dispatch;
mod error;
mod exec;
mod files;
mod flow;
mod lifecycle;
mod outbox;
mod server;
mod startup;
mod sys;

pub use config::Config;
pub use exec::FIRST_EXEC;

/// Gives every signal its default disposition, for commands to inherit. To be called once in the
/// process that is to [`serve`], as early as it likes.
pub fn settle_signals() {
    sys::default_signals();
}

/// Serves until the deadline, a `Shutdown`, or the end of what it is tied to. Returns the exit
/// code of the process.
pub fn serve(config: Config) -> i32 {
    server::run(config)
}
