//! Removing a tree by descriptors: follows no link, whatever the modes in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;

/// Removes `name` in `parent` and all beneath it; what is not there is removed already. Depth is
/// bounded by what was let in ([`super::super::Limits::depth`]).
pub(in super::super) fn remove_tree(parent: &impl AsFd, name: &[u8]) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let dir = open(parent, name)?;
    // Names first: a directory that changes while it is read may be read for ever.
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    for name in names {
        remove_tree(&dir, &name)?;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn open(parent: &impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !rustix::process::geteuid().is_root() {
        // An ordinary user can't remove what is in a directory without write permission. It is a
        // directory (unlink said so), in a folder that only we write to.
        chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(openat(parent, name, flags, Mode::empty())?)
}
