//! JSON in and out, as clients know it.

mod escape;
mod reader;
mod writer;

pub(crate) use escape::escape;
pub(crate) use reader::read;
pub(crate) use writer::write;
