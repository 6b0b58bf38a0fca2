//! What can be done with sandboxes, a file for each verb.

mod argv;
mod capture;
mod destroy;
mod detached;
mod ending;
mod exec;
mod extend;
mod files;
mod get;
mod inputs;
mod making;
mod prune;
mod recorded;
mod spawn;
mod watch;
mod watching;

pub use destroy::Destroyed;
pub use exec::Captured;
pub use inputs::{ExecInput, ExecMode, SpawnInput};

pub(crate) use ending::{Endings, begin, settled, sweep};
pub(crate) use making::Spawning;
pub(crate) use watching::{Watching, watch_again};
