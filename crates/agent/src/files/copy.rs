//! Moving a regular file to another file system: a copy beside the target, renamed, then the
//! original is removed.

use std::os::fd::OwnedFd;

use protocol::agent::Body;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::path::Place;
use super::write::WriteJob;
use super::{Slice, Step, Tree, read};
use crate::error::{Outcome, on_path};

const PIECE: usize = 64 * 1024;

pub(crate) struct CopyJob {
    from: Place,
    path: String,
    source: OwnedFd,
    /// Taken when the copy is whole.
    target: Option<WriteJob>,
    piece: Vec<u8>,
}

impl CopyJob {
    pub(super) fn start(
        tree: &Tree,
        from: Place,
        path: &str,
        to: Place,
        to_path: &str,
    ) -> Outcome<Self> {
        let (source, _, mode) = read::open(tree, path)?;
        let target = WriteJob::at(to, to_path, Some(mode))?;
        Ok(Self {
            from,
            path: path.to_owned(),
            source,
            target: Some(target),
            piece: Vec::with_capacity(PIECE),
        })
    }

    pub(super) fn step(&mut self, slice: &Slice) -> Step {
        match self.copy(slice) {
            Ok(false) => Step::Again,
            Ok(true) => Step::Done(Ok(Body::Done)),
            Err(error) => Step::Done(Err(error)),
        }
    }

    /// Copies on; `true` when the file has moved.
    fn copy(&mut self, slice: &Slice) -> Outcome<bool> {
        loop {
            self.piece.clear();
            match rustix::io::read(&self.source, rustix::buffer::spare_capacity(&mut self.piece)) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(on_path(errno, &self.path)),
                Ok(0) => {
                    if let Some(target) = self.target.take() {
                        target.finish()?;
                    }
                    return unlinkat(&self.from.dir, self.from.name.as_str(), AtFlags::empty())
                        .map(|()| true)
                        .map_err(|e| on_path(e, &self.path));
                }
                Ok(_) => {
                    if let Some(target) = &mut self.target {
                        target.push(&self.piece)?;
                    }
                }
            }
            if slice.is_over() {
                return Ok(false);
            }
        }
    }
}
