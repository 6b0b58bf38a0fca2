//! What can be done with sandboxes, a file for each verb.

mod argv;
mod capture;
mod destroy;
mod ending;
mod exec;
mod extend;
mod files;
mod get;
mod inputs;
mod making;
mod prune;
mod spawn;
mod watch;

pub use destroy::Destroyed;
pub use exec::Captured;
pub use inputs::{ExecInput, ExecMode, SpawnInput};

pub(crate) use ending::{Endings, begin, settled, sweep};
pub(crate) use making::Spawning;
