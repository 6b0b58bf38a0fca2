//! The store while it is mounted: opened by one process at a time, used by many.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use types::failpoint::hit;

use super::{StorageConfig, btrfs, file, loopdev};
use crate::host::mounts;

/// `nodiscard`: freed blocks stay in the file, which must not become sparse.
const OPTIONS: &std::ffi::CStr = c"nodiscard";

pub(super) struct Mounted {
    dir: PathBuf,
    point: PathBuf,
    /// Kept open: the root of the mount.
    root: File,
    file: File,
    device: PathBuf,
    /// Held shared while we use the store.
    users: File,
    max: AtomicU64,
    uuid: String,
}

/// Numbers of the file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub size: u64,
    pub free: u64,
    /// Given to nothing yet: what content or its records can still take.
    pub unallocated: u64,
}

/// Numbers of one writable layer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub used: u64,
    pub limit: u64,
}

impl Mounted {
    /// Makes, attaches and mounts what is not yet. The error says in words why that can't be.
    pub fn open(config: &StorageConfig) -> Result<Self, String> {
        let words = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount it".into());
        }
        std::fs::create_dir_all(&config.dir).map_err(words("its folder"))?;
        let dir = config.dir.canonicalize().map_err(words("its folder"))?;
        let point = dir.join("mnt");
        let gate = open_lock(&dir.join("lock")).map_err(words("its lock"))?;
        flock(&gate, FlockOperation::LockExclusive).map_err(|e| format!("its lock: {e}"))?;
        let path = dir.join("store.btrfs");
        let mounted_now = is_mounted(&point).map_err(words("the mount table"))?;
        if config.join_only && !mounted_now {
            return Err("no server keeps one here".into());
        }
        let fresh = !path.exists();
        if fresh {
            let max = file::max_size(&dir, 0, config.max_mb).map_err(words("its folder"))?;
            file::make(&path, max)?;
        }
        let (file, device) = match bring_up(&path, &point, mounted_now) {
            Err(reason) if !fresh && !mounted_now && is_unused(&path) => {
                // Without a device no sandbox can be alive on it; a power cut may have torn it.
                tracing::warn!(%reason, "the disk store can't be mounted and is made anew");
                let max = file::max_size(&dir, 0, config.max_mb).map_err(words("its folder"))?;
                file::make(&path, max)?;
                bring_up(&path, &point, false)?
            }
            done => done?,
        };
        let root = File::open(&point).map_err(words("its mount point"))?;
        btrfs::enable_quota(root.as_fd()).map_err(words("its quota"))?;
        let uuid = btrfs::uuid(root.as_fd()).map_err(words("its id"))?;
        let size = file.metadata().map_err(words("its file"))?.len();
        let max = file::max_size(&dir, size, config.max_mb).map_err(words("its folder"))?;
        let users = open_lock(&dir.join("users")).map_err(words("its lock"))?;
        flock(&users, FlockOperation::LockShared).map_err(|e| format!("its lock: {e}"))?;
        let max = AtomicU64::new(max);
        Ok(Self { dir, point, root, file, device, users, max, uuid })
    }

    pub fn point(&self) -> &Path {
        &self.point
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Its size, and what can still be written, less what waits in memory to be written.
    pub fn room(&self) -> io::Result<Room> {
        let fs = statvfs(&self.point)?;
        let waiting = self.number("allocation/data/bytes_may_use").unwrap_or(0);
        let free = (fs.f_bavail * fs.f_frsize).saturating_sub(waiting);
        let size = self.file.metadata()?.len();
        let given = ["data", "metadata", "system"]
            .map(|kind| self.number(&format!("allocation/{kind}/disk_total")));
        // Where the kernel does not tell, what is free has to do.
        let given = given.into_iter().sum::<Option<u64>>().unwrap_or(0);
        Ok(Room { size, free, unallocated: size.saturating_sub(given) })
    }

    /// What the subvolume of this number holds, written or about to be, and what it may hold;
    /// `None` if the kernel does not tell.
    pub fn usage(&self, subvolume: u64) -> Option<Usage> {
        let number = |what: &str| self.number(&format!("qgroups/0_{subvolume}/{what}"));
        let used = number("referenced")?.saturating_add(number("rsv_data")?);
        Some(Usage { used, limit: number("max_referenced")? })
    }

    /// One of the numbers that the kernel shows of this file system.
    fn number(&self, what: &str) -> Option<u64> {
        let file = format!("/sys/fs/btrfs/{}/{what}", self.uuid);
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Grows it, online, to `to` bytes or as far as the host's disk allows. Returns its size.
    pub fn grow(&self, to: u64) -> io::Result<u64> {
        let gate = open_lock(&self.dir.join("lock"))?;
        flock(&gate, FlockOperation::LockExclusive)?;
        let size = self.file.metadata()?.len();
        let to = to.min(self.max()).min(size + file::host_room(&self.dir)?) & !(file::MIB - 1);
        if to <= size {
            return Ok(size);
        }
        file::extend(&self.file, to)?;
        loopdev::take_new_size(&self.device)?;
        btrfs::resize_to_device(self.root())?;
        Ok(to)
    }

    /// Unmounts it, if nobody uses it and no sandbox has a layer on it; then the device goes by
    /// itself. Returns whether it did; either way we are no user any more. `root` keeps the mount busy, hence the detached way: nothing
    /// else has it open then.
    pub fn release(&self) -> io::Result<bool> {
        let gate = open_lock(&self.dir.join("lock"))?;
        flock(&gate, FlockOperation::LockExclusive)?;
        let in_use = std::fs::read_dir(&self.point)?.next().is_some()
            || flock(&self.users, FlockOperation::NonBlockingLockExclusive).is_err();
        if in_use {
            // Not left to the descriptor's end: a task that is being dropped may still hold it.
            flock(&self.users, FlockOperation::Unlock)?;
            return Ok(false);
        }
        unmount(&self.point, UnmountFlags::DETACH)?;
        Ok(true)
    }
}

/// Attaches and mounts the file, or finds that done.
fn bring_up(path: &Path, point: &Path, mounted_now: bool) -> Result<(File, PathBuf), String> {
    let options = OpenOptions::new().read(true).write(true).open(path);
    let file = options.map_err(|e| format!("its file: {e}"))?;
    let found = loopdev::find(&file).map_err(|e| format!("loop devices: {e}"))?;
    if mounted_now {
        let device = found.ok_or("something else is mounted at its place")?;
        return Ok((file, device));
    }
    std::fs::create_dir_all(point).map_err(|e| format!("its mount point: {e}"))?;
    let attached;
    let device = match found {
        // Sandboxes of an earlier server may hold it: the same device gives the same file system.
        Some(device) => device,
        None => {
            attached = loopdev::attach(&file).map_err(|e| format!("no loop device: {e}"))?;
            attached.path.clone()
        }
    };
    hit("storage.attached");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(&device, point, "btrfs", flags, OPTIONS)
        .map_err(|e| format!("this kernel or container can't mount it: {e}"))?;
    hit("storage.mounted");
    Ok((file, device))
}

fn is_mounted(point: &Path) -> io::Result<bool> {
    Ok(mounts()?.iter().any(|m| m.is_at(point)))
}

fn is_unused(path: &Path) -> bool {
    File::open(path).and_then(|f| loopdev::find(&f)).is_ok_and(|device| device.is_none())
}

fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
