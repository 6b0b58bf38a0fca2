//! Flocks: on the whole store for a moment, on layers for as long as they must stay.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use types::{ErrorCode, Fault};

use super::fault::io;
use super::root::Root;

/// How long another process may hold the store. It does so for a few renames, so whoever holds it
/// longer is stopped, not busy.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);
/// Making a layer takes longer.
const MAKING_STEP: Duration = Duration::from_millis(25);

/// The store, held still until this is dropped.
pub(super) struct StoreLock(#[allow(dead_code)] File);

/// A layer that stays until this is dropped.
pub(super) struct LayerLock(#[allow(dead_code)] File);

/// The right to make a layer; others who want it wait.
pub(super) struct MakingLock {
    path: std::path::PathBuf,
    _file: File,
}

impl Drop for MakingLock {
    fn drop(&mut self) {
        // Unlinked while it is held: who waits for it sees that, and takes a new one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Keeps the layers of an image from being removed. Take it before they are mounted; once they are,
/// the mount itself keeps them. Costs no descriptor while another hold on the same layer lives.
#[must_use = "the layers may go as soon as the hold is dropped"]
pub struct Hold(#[allow(dead_code)] Vec<Arc<LayerLock>>);

/// What this process holds already.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<String, Weak<LayerLock>>>);

impl Root {
    /// For reading several things that belong together.
    pub(super) fn lock_shared(&self) -> Result<StoreLock, Fault> {
        self.lock(FlockOperation::NonBlockingLockShared)
    }

    /// For changing any.
    pub(super) fn lock_exclusive(&self) -> Result<StoreLock, Fault> {
        self.lock(FlockOperation::NonBlockingLockExclusive)
    }

    fn lock(&self, how: FlockOperation) -> Result<StoreLock, Fault> {
        let failed = "locking the image store failed";
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir().join("lock"))
            .map_err(io(failed))?;
        let mut waited = Duration::ZERO;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(StoreLock(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if waited < PATIENCE => {
                    std::thread::sleep(STEP);
                    waited += STEP;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Fault::unavailable("another process holds the image store"));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io(failed)(e.into())),
            }
        }
    }

    /// Keeps these layers.
    pub(super) fn hold(&self, layers: &[String]) -> Result<Hold, Fault> {
        layers.iter().map(|short| self.hold_layer(short)).collect::<Result<_, _>>().map(Hold)
    }

    pub(super) fn hold_layer(&self, short: &str) -> Result<Arc<LayerLock>, Fault> {
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.get(short).and_then(Weak::upgrade) {
            return Ok(lock);
        }
        let lock = Arc::new(self.lock_layer(short)?);
        held.retain(|_, weak| weak.strong_count() > 0);
        held.insert(short.to_owned(), Arc::downgrade(&lock));
        Ok(lock)
    }

    /// Waits for the right to make a layer, as long as others make it; `None` once given up.
    pub(super) fn lock_making(
        &self,
        short: &str,
        given_up: impl Fn() -> bool,
    ) -> Result<Option<MakingLock>, Fault> {
        let failed = "locking a layer of the image failed";
        let path = self.making().join(short);
        loop {
            let open = File::options().write(true).create(true).truncate(false).open(&path);
            let file = open.map_err(io(failed))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if file.metadata().map_err(io(failed))?.nlink() > 0 => {
                    return Ok(Some(MakingLock { path, _file: file }));
                }
                Ok(()) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if given_up() => return Ok(None),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(MAKING_STEP),
                Err(e) => return Err(io(failed)(e.into())),
            }
        }
    }

    fn lock_layer(&self, short: &str) -> Result<LayerLock, Fault> {
        let failed = "locking a layer of the image failed";
        // A remover that has the lock unlinks it: ours may be of a file that nobody sees any more.
        for _ in 0..8 {
            let file = match File::open(self.layer_lock(short)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone()),
                Err(e) => return Err(io(failed)(e)),
            };
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(going()),
                Err(e) => return Err(io(failed)(e.into())),
            }
            if file.metadata().map_err(io(failed))?.nlink() > 0 {
                fs::symlink_metadata(self.layer(short)).map_err(|e| gone().caused_by(e))?;
                return Ok(LayerLock(file));
            }
        }
        Err(going())
    }

    /// The lock of a layer nobody holds, `None` if somebody does. Under the exclusive store lock.
    pub(super) fn lock_unheld_layer(&self, short: &str) -> Result<Option<LayerLock>, Fault> {
        let failed = "locking a layer of the image failed";
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.layer_lock(short))
            .map_err(io(failed))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(LayerLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(io(failed)(e.into())),
        }
    }
}

fn gone() -> Fault {
    Fault::new(ErrorCode::ImageNotFound, "the image was removed meanwhile")
}

fn going() -> Fault {
    Fault::unavailable("the image is being removed; try again")
}
