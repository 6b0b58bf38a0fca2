//! The store's own folder: its parts, work under way in it, and files that appear whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use types::Fault;

use super::fault::{errno, io};
use super::locks::Held;
use super::unpack::remove_tree;

pub(super) struct Root {
    dir: PathBuf,
    layers: PathBuf,
    pub(super) held: Held,
}

impl Root {
    /// Opens the folder, making what is missing. It is closed to everyone else: the trees in it
    /// hold setuid files that nobody on the host may reach.
    pub(super) fn open(dir: PathBuf) -> Result<Self, Fault> {
        let failed = io("opening the image store failed");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(&failed)?;
        let meta = fs::metadata(&dir).map_err(&failed)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(Fault::unavailable("the image store belongs to another user"));
        }
        if meta.mode() & 0o777 != 0o700 {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(&failed)?;
        }
        for part in ["layers", "locks", "making", "manifests", "refs", "tmp"] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir.join(part))
                .map_err(&failed)?;
        }
        Ok(Self { layers: dir.join("layers"), dir, held: Held::default() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn layers(&self) -> &Path {
        &self.layers
    }

    pub(super) fn layer(&self, short: &str) -> PathBuf {
        self.layers.join(short)
    }

    pub(super) fn layer_lock(&self, short: &str) -> PathBuf {
        self.dir.join("locks").join(short)
    }

    /// Locks of layers that somebody is making.
    pub(super) fn making(&self) -> PathBuf {
        self.dir.join("making")
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub(super) fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(super) fn host_record(&self) -> PathBuf {
        self.dir.join("host.json")
    }

    /// A new folder to work in. It and what is in it go when the value is dropped, or, if this
    /// process dies first, with the next sweep.
    pub(super) fn stage(&self) -> Result<Staging, Fault> {
        let failed = "making room in the image store failed";
        // A sweep may take a lock between its making and ours; a second word settles that.
        for _ in 0..16 {
            let dir = self.tmp().join(random_word()?);
            let lock_path = dir.with_extension("lock");
            let lock = File::options()
                .write(true)
                .create_new(true)
                .open(&lock_path)
                .map_err(io(failed))?;
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && lock.metadata().map_err(io(failed))?.nlink() > 0 {
                let staging = Staging { dir, lock_path, _lock: lock };
                fs::DirBuilder::new().mode(0o700).create(&staging.dir).map_err(io(failed))?;
                return Ok(staging);
            }
        }
        Err(Fault::internal(failed))
    }
}

/// Work under way.
pub(super) struct Staging {
    dir: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Staging {
    /// Where a tree is unpacked, made on the first call.
    pub(super) fn tree(&self) -> Result<(PathBuf, OwnedFd), Fault> {
        let path = self.dir.join("tree");
        let failed = "making room in the image store failed";
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io(failed))?;
        let fd = open_dir(&path).map_err(errno(failed))?;
        Ok((path, fd))
    }

    /// A file to work with, empty.
    pub(super) fn scratch(&self) -> Result<File, Fault> {
        let path = self.dir.join("scratch");
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(io("making room in the image store failed"))
    }

    /// Takes a folder in, to be removed with this.
    pub(super) fn take_in(&self, path: &Path) -> io::Result<()> {
        let word = random_word().map_err(io::Error::other)?;
        fs::rename(path, self.dir.join(word))
    }

    /// Makes a file appear with all of its content, in place of what had its name.
    pub(super) fn place_file(&self, bytes: &[u8], target: &Path) -> Result<(), Fault> {
        let failed = "writing to the image store failed";
        let new = self.dir.join("file");
        let mut file = File::create(&new).map_err(io(failed))?;
        file.write_all(bytes).map_err(io(failed))?;
        file.sync_data().map_err(io(failed))?;
        fs::rename(&new, target).map_err(io(failed))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        remove_staged(&self.dir, &self.lock_path);
    }
}

/// Removes what was staged, then its lock: in this order a crash leaves something to sweep by.
pub(super) fn remove_staged(dir: &Path, lock: &Path) {
    let Some((parent, name)) = dir.parent().zip(dir.file_name()) else { return };
    let removed = open_dir(parent)
        .map_err(io::Error::from)
        .and_then(|parent| remove_tree(&parent, name.as_encoded_bytes()));
    match removed {
        Ok(()) => drop(fs::remove_file(lock)),
        Err(error) => tracing::warn!(%error, "image store: temporary files stay until next time"),
    }
}

pub(super) fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(
        rustix::fs::CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Names in one of the store's folders, sorted. A folder that went is empty.
pub(super) fn names_in(path: &Path) -> Result<Vec<String>, Fault> {
    let failed = "reading the image store failed";
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(failed)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io(failed))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn random_word() -> Result<String, Fault> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes)
        .map_err(|e| Fault::internal("the system has no random bytes").caused_by(e))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
