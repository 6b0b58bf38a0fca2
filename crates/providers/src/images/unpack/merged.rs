//! Several layers seen as one tree, as an overlay of them would show it: the upper hides the lower,
//! whiteouts and opaque directories hide what is beneath. Reads names only, follows no link.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use types::Fault;

use super::super::fault::errno;

const READING: &str = "reading the layers of the image failed";
/// Marks a directory beneath which nothing of lower layers is seen: root's form, a user's form.
pub(super) const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// A directory of the merged tree: those of the layers that have it, topmost first.
pub(super) type Merged = Vec<Rc<OwnedFd>>;

/// What a name means in a merged directory.
pub(super) enum Found {
    Nothing,
    Directory(Merged, Stat),
    /// In this directory of one layer.
    Other(Rc<OwnedFd>, Stat),
}

pub(super) fn look(dir: &Merged, name: &[u8]) -> Result<Found, Fault> {
    let mut found = Vec::new();
    let mut first: Option<Stat> = None;
    for layer in dir {
        let stat = match statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(errno(READING)(e)),
        };
        if is_whiteout(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if first.is_none() {
                return Ok(Found::Other(Rc::clone(layer), stat));
            }
            break;
        }
        let below = open(layer, name).map_err(errno(READING))?;
        let opaque = is_opaque(&below);
        found.push(Rc::new(below));
        first.get_or_insert(stat);
        if opaque {
            break;
        }
    }
    Ok(match first {
        Some(stat) => Found::Directory(found, stat),
        None => Found::Nothing,
    })
}

/// The names in a merged directory, without those that are hidden.
pub(super) fn names(dir: &Merged, most: u64) -> Result<Vec<Vec<u8>>, Fault> {
    let mut names = std::collections::BTreeSet::new();
    for layer in dir {
        for entry in Dir::read_from(layer).map_err(errno(READING))? {
            let entry = entry.map_err(errno(READING))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.insert(name.to_vec());
            }
            if names.len() as u64 > most {
                return Err(Fault::bad_request("it holds more files than an image may"));
            }
        }
    }
    let mut seen = Vec::new();
    for name in names {
        if !matches!(look(dir, &name)?, Found::Nothing) {
            seen.push(name);
        }
    }
    Ok(seen)
}

/// A character device 0:0 stands for "not there".
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let marked = |name: &CStr| {
        let mut value = [0u8; 4];
        matches!(rustix::fs::fgetxattr(dir, name, &mut value[..]), Ok(1) if value[0] == b'y')
    };
    OPAQUE.into_iter().any(marked)
}

pub(super) fn open(at: &impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}
