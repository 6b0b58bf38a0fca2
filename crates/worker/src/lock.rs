//! One process per worker folder.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use types::{Fault, WorkerId};

/// Held as long as it lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

/// Takes the lock of a worker's folder. `Unavailable` if another process has it.
pub(crate) fn take(dir: &Path, id: &WorkerId) -> Result<DirLock, Fault> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir.join("lock"), flags, Mode::RUSR | Mode::WUSR).map_err(|e| {
        Fault::unavailable("the worker's folder cannot be used").caused_by(std::io::Error::from(e))
    })?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock { _file: File::from(fd) }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Fault::unavailable(format!(
            "worker {id} is in use by another process with this data directory"
        ))),
        Err(e) => Err(Fault::unavailable("the worker's folder cannot be locked")
            .caused_by(std::io::Error::from(e))),
    }
}
