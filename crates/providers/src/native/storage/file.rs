//! The store's file: made, formatted, grown. Never sparse: a sparse one turns read-only when the
//! host's disk fills.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use types::failpoint::hit;

pub(super) const MIB: u64 = 1 << 20;
/// The first size.
const START: u64 = 512 * MIB;
/// Below this btrfs has no room to work in.
const SMALLEST: u64 = 256 * MIB;
/// What growing leaves free on the host's disk for everybody else.
const HOST_RESERVE: u64 = 512 * MIB;

/// Makes and formats the file, as small as may be. `max`: as far as it may grow.
pub(super) fn make(path: &Path, max: u64) -> Result<(), String> {
    let mkfs = mkfs_program().ok_or("btrfs-progs is not installed (no mkfs.btrfs)")?;
    if max < SMALLEST {
        return Err(format!("it needs {} MiB of disk, and may have {}", SMALLEST / MIB, max / MIB));
    }
    let new = path.with_extension("new");
    let made = write_new(&new, START.min(max)).map_err(|e| format!("its file: {e}"));
    hit("storage.written");
    let formatted = made.and_then(|()| format(&mkfs, &new));
    let placed =
        formatted.and_then(|()| std::fs::rename(&new, path).map_err(|e| format!("its file: {e}")));
    hit("storage.made");
    if placed.is_err() {
        let _ = std::fs::remove_file(&new); // it may not have come so far
    }
    placed
}

fn write_new(path: &Path, size: u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, size)?;
    Ok(())
}

fn format(mkfs: &Path, path: &Path) -> Result<(), String> {
    // No discard: it would punch holes into the file.
    let done = Command::new(mkfs)
        .args(["-q", "-f", "-K", "-m", "single", "-d", "single"])
        .arg(path)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("mkfs.btrfs does not start: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr);
    let last = words.lines().rfind(|l| !l.is_empty()).unwrap_or("no reason given").to_owned();
    Err(format!("mkfs.btrfs failed: {last}"))
}

/// Where btrfs-progs are.
pub(crate) fn mkfs_program() -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join("mkfs.btrfs"))
        .find(|p| p.exists())
}

/// Makes the file larger, with real blocks.
pub(super) fn extend(file: &File, to: u64) -> io::Result<()> {
    let has = file.metadata()?.len();
    if to > has {
        fallocate(file, FallocateFlags::empty(), has, to - has)?;
    }
    Ok(())
}

/// Bytes of the host's disk that the file may still take.
pub(super) fn host_room(dir: &Path) -> io::Result<u64> {
    let fs = statvfs(dir)?;
    Ok((fs.f_bavail * fs.f_frsize).saturating_sub(HOST_RESERVE))
}

/// How far the file may grow: as configured, or to its size and half of what is free.
pub(super) fn max_size(dir: &Path, now: u64, configured_mb: Option<u64>) -> io::Result<u64> {
    match configured_mb {
        Some(mb) => Ok(mb.saturating_mul(MIB).max(now)),
        None => Ok(now + host_room(dir)? / 2),
    }
}
