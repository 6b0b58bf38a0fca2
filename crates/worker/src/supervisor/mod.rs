//! One owner per sandbox: [`Sandbox`] holds what is known of one, [`Sandboxes`] finds it.
//!
//! Operations on different sandboxes never wait for each other; spawn, destroy, extend and death
//! of one take turns. Each runs in a task of its own: who asked may go away, the work goes on.

mod destroy;
mod extend;
mod lease;
mod map;
mod sandbox;
mod spawn;
mod watch;

pub(crate) use extend::AGENT_DEADLINE;
pub(crate) use map::Sandboxes;
pub(crate) use sandbox::{Expiry, Phase, Sandbox};
pub(crate) use spawn::journal_fault;
