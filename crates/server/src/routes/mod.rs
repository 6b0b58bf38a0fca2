//! Handlers, one file a noun: parse, call `control`, translate what comes back.

pub(crate) mod archive;
pub(crate) mod content;
pub(crate) mod exec;
pub(crate) mod execs;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod providers;
pub(crate) mod sandboxes;
pub(crate) mod session;
mod stream;
pub(crate) mod system;
mod talk;
pub(crate) mod workers;
