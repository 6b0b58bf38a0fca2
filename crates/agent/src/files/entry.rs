//! Single files: what they are, and their permission bits.

use protocol::agent::FileEntry;
use rustix::fs::{FileType, Mode, OFlags, Stat, fchmod, fstat};
use rustix::io::Errno;

use super::Tree;
use super::path::display;
use crate::error::{Outcome, on_path};
use crate::sys;

/// Permission bits, set-id and sticky included.
pub(crate) const PERMISSIONS: u32 = 0o7777;

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Describes a file. `path` is from the root.
pub(crate) fn entry(path: &str, stat: &Stat) -> FileEntry {
    FileEntry {
        path: display(path),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & PERMISSIONS,
        is_dir: file_type(stat) == FileType::Directory,
        mtime: stat.st_mtime,
    }
}

/// What `path` leads to; a dangling link is described itself.
pub(crate) fn look(tree: &Tree, path: &str) -> Result<Stat, Errno> {
    match tree.open(path, OFlags::PATH) {
        Ok(fd) => fstat(fd),
        Err(errno @ (Errno::NOENT | Errno::LOOP)) => {
            if path.ends_with('/') {
                return Err(errno);
            }
            fstat(tree.open(path, OFlags::PATH | OFlags::NOFOLLOW)?)
        }
        Err(errno) => Err(errno),
    }
}

pub(crate) fn stat(tree: &Tree, path: &str) -> Outcome<FileEntry> {
    let absolute = tree.absolute(path)?;
    let stat = look(tree, &absolute).map_err(|e| on_path(e, path))?;
    Ok(entry(&absolute, &stat))
}

pub(crate) fn chmod(tree: &Tree, path: &str, mode: u32) -> Outcome<()> {
    let absolute = tree.absolute(path)?;
    let mode = mode & PERMISSIONS;
    let fd = tree.open(&absolute, OFlags::PATH).map_err(|e| on_path(e, path))?;
    match sys::chmod_by_fd(&fd, mode) {
        // An older kernel, or a filter that does not know the call. A device or a pipe is not
        // opened for this: that can block or do things.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {}
        done => return done.map_err(|e| on_path(e, path)),
    }
    let kind = fstat(&fd).map(|s| file_type(&s)).map_err(|e| on_path(e, path))?;
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(on_path(Errno::NXIO, path));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    tree.open(&absolute, flags)
        .and_then(|fd| fchmod(fd, Mode::from_raw_mode(mode)))
        .map_err(|e| on_path(e, path))
}
