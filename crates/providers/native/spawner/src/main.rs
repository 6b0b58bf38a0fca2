//! The spawner: a small process without threads that keeps namespaces, mounts and the agent's code
//! ready, and clones sandboxes from itself.
//!
//! It is started with one end of a SOCK_SEQPACKET pair as descriptor 3 and speaks
//! `protocol::spawner` on it. When that end closes, it goes; the sandboxes it made live on.
//!
//! The floor plan: `server` is the loop; `stage` its private root file system; `slots` prepares
//! user and network namespaces; `cgroups` makes and removes what limits a sandbox; `birth` clones;
//! everything in `inside` runs in the clone, from its first instruction to the agent's.

mod birth;
mod cgroups;
mod channel;
mod dynmods;
mod inside;
mod machine;
mod releases;
mod seccomp;
mod server;
mod slots;
mod stage;
mod step;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    match channel::Channel::inherited() {
        Some(channel) => server::run(channel),
        None => ExitCode::from(2),
    }
}
