//! What can be done with sandboxes, a file for each verb.

mod argv;
mod capture;
mod destroy;
mod detached;
mod ending;
mod exec;
mod extend;
mod files;
mod find;
mod flights;
mod get;
mod history;
mod inputs;
mod making;
mod prune;
mod recorded;
mod repeat;
mod spawn;
mod warm;
mod watch;
mod watching;

pub use destroy::Destroyed;
pub use exec::Captured;
pub use find::Finding;
pub use inputs::{ExecInput, ExecMode, RepeatKey, SpawnInput};
pub use repeat::Obtained;

pub(crate) use ending::{Endings, begin, settled, sweep};
pub(crate) use flights::Spawning;
pub(crate) use history::{History, keep_history};
pub(crate) use repeat::{KEY_LIFE, left_unanswered};
pub(crate) use watching::{Watching, last_words_of, watch_again};
