//! Renaming.

use rustix::fs::{FileType, renameat};
use rustix::io::Errno;

use super::copy::CopyJob;
use super::entry::file_type;
use super::{Job, Tree};
use crate::error::{Outcome, bad_request, fail, on_path};

/// What became of a move.
pub(crate) enum Moved {
    Done,
    /// To another file system: it is copied.
    Copying(Box<Job>),
}

/// Moves what `from` names itself (a link is moved, not its target).
pub(crate) fn rename(tree: &Tree, from: &str, to: &str) -> Outcome<Moved> {
    let source = tree.place(&tree.absolute(from)?)?;
    source.stat().map_err(|e| on_path(e, from))?;
    let target = tree.place_made(&tree.absolute(to)?)?;
    match renameat(&source.dir, source.name.as_str(), &target.dir, target.name.as_str()) {
        Ok(()) => Ok(Moved::Done),
        Err(Errno::XDEV) => {
            let kind = source.stat().map(|s| file_type(&s)).map_err(|e| on_path(e, from))?;
            if kind != FileType::RegularFile {
                return Err(bad_request(format!(
                    "{}: only files can be moved to another file system",
                    crate::error::shown(from)
                )));
            }
            let copy = CopyJob::start(tree, source, from, target, to)?;
            Ok(Moved::Copying(Box::new(Job::Copy(copy))))
        }
        // Which of the two names is meant depends on the error.
        Err(errno @ Errno::NOENT) => Err(on_path(errno, from)),
        Err(Errno::INVAL) => Err(fail(
            protocol::agent::AgentErrorCode::BadRequest,
            "a directory cannot move into itself",
        )),
        Err(errno) => Err(on_path(errno, to)),
    }
}
