//! The spawner: a small process without threads that keeps namespaces, mounts and the agent's code
//! ready, and clones sandboxes from itself.
//!
//! It is started with one end of a SOCK_SEQPACKET pair as descriptor 3 and speaks
//! `protocol::spawner` on it. When that end closes, it goes; the sandboxes it made live on.
//!
//! The floor plan: `server` is the loop; `stage` its private root file system; `slots` keeps
//! `namespaces` ready, and with each pair `prepared` a process that waits in namespaces of its own; `cgroups` makes and removes what limits a sandbox; `birth` turns a prepared process into
//! one; everything in `inside` runs in that process, from its first instruction to the agent's.

mod birth;
mod cgroups;
mod channel;
mod datagram;
mod dynmods;
mod inside;
mod machine;
mod namespaces;
mod prepared;
mod releases;
mod seccomp;
mod server;
mod slots;
mod stage;
mod step;
mod sys;
mod warm;

use std::process::ExitCode;

fn main() -> ExitCode {
    match channel::Channel::inherited() {
        Some(channel) => server::run(channel),
        None => ExitCode::from(2),
    }
}
