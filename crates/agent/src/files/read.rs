//! Reading a regular file.

use std::os::fd::OwnedFd;

use protocol::agent::{Body, Event, MAX_PAYLOAD, ReadRange};
use rustix::fs::{FileType, OFlags, SeekFrom, fstat, seek};
use rustix::io::Errno;

use super::entry::{PERMISSIONS, file_type};
use super::{Port, Slice, Step, Tree};
use crate::error::{Outcome, on_path};

/// Files of /proc say size 0 and have content; so much of such a file is read. A bound, since some
/// never end.
const UNSIZED: u64 = 16 << 20;

pub(crate) struct ReadJob {
    file: OwnedFd,
    path: String,
    /// A file that grows while it is read ends where it ended at first, so that a writer cannot
    /// keep the reader for ever.
    left: u64,
}

impl ReadJob {
    pub(crate) fn start(
        tree: &Tree,
        path: &str,
        range: Option<ReadRange>,
        port: &mut Port<'_>,
    ) -> Outcome<Self> {
        let (file, size, mode) = open(tree, path)?;
        port.event(&Event::Size { bytes: size, mode });
        let left = match range {
            None if size == 0 => UNSIZED,
            None => size,
            Some(range) => {
                let part = range.of(size).unwrap_or(0..0);
                seek(&file, SeekFrom::Start(part.start)).map_err(|e| on_path(e, path))?;
                part.end - part.start
            }
        };
        Ok(Self { file, path: path.to_owned(), left })
    }

    pub(super) fn step(&mut self, port: &mut Port<'_>, slice: &Slice) -> Step {
        while self.left > 0 {
            let max = MAX_PAYLOAD.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            match port.data_from(&self.file, max) {
                Ok(None) => return Step::Wait,
                Ok(Some(0)) => break,
                Ok(Some(got)) => self.left -= got as u64,
                Err(Errno::INTR) => {}
                // Only files of /proc say so; there is nothing to wait for.
                Err(Errno::AGAIN) => break,
                Err(errno) => return Step::Done(Err(on_path(errno, &self.path))),
            }
            if slice.is_over() {
                return Step::Again;
            }
        }
        Step::Done(Ok(Body::Done))
    }
}

/// Opens a regular file, with its size and mode. Looks before it opens: opening a device or a pipe
/// can have effects.
pub(super) fn open(tree: &Tree, path: &str) -> Outcome<(OwnedFd, u64, u32)> {
    let fault = |errno| on_path(errno, path);
    let absolute = tree.absolute(path)?;
    let found = fstat(tree.open(&absolute, OFlags::PATH).map_err(fault)?).map_err(fault)?;
    refuse_special(file_type(&found)).map_err(fault)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = tree.open(&absolute, flags).map_err(fault)?;
    let stat = fstat(&file).map_err(fault)?;
    refuse_special(file_type(&stat)).map_err(fault)?;
    Ok((file, u64::try_from(stat.st_size).unwrap_or(0), stat.st_mode & PERMISSIONS))
}

/// Only regular files are read and replaced.
pub(super) fn refuse_special(kind: FileType) -> Result<(), Errno> {
    match kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NXIO),
    }
}
