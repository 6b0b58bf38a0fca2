//! The file operations. Paths are resolved in `path`; what may take long proceeds as a [`Job`].

mod copy;
mod delete;
mod entry;
mod glob;
mod job;
mod list;
mod moves;
mod pack;
mod path;
mod pattern;
mod read;
mod scan;
mod unpack;
mod write;

pub(crate) use delete::DeleteJob;
pub(crate) use entry::{chmod, stat};
pub(crate) use glob::GlobJob;
pub(crate) use job::{Job, Port, Slice, Step};
pub(crate) use list::ListJob;
pub(crate) use moves::{Moved, rename};
pub(crate) use pack::PackJob;
pub(crate) use path::Tree;
pub(crate) use read::ReadJob;
pub(crate) use unpack::UnpackJob;
pub(crate) use write::WriteJob;
