//! Writing a file: into a hidden file beside it, renamed over it when whole.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timestamps, Uid, fchmod, fchown, futimens, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

use super::Tree;
use super::entry::{PERMISSIONS, file_type};
use super::path::Place;
use super::read::refuse_special;
use crate::error::{Outcome, on_path};
use crate::sys;

/// Of a new file.
const DEFAULT_MODE: u32 = 0o644;
const TRIES: u64 = 32;

pub(crate) struct WriteJob {
    place: Place,
    path: String,
    temp: String,
    file: OwnedFd,
    mode: u32,
    owner: Option<(u32, u32)>,
    renamed: bool,
}

impl WriteJob {
    pub(crate) fn start(tree: &Tree, path: &str, mode: Option<u32>) -> Outcome<Self> {
        let place = tree.place_followed(&tree.absolute(path)?)?;
        let mut job = Self::at(place, path, mode.map(|m| m & PERMISSIONS))?;
        job.owner = job.owner.or(tree.owner());
        Ok(job)
    }

    /// Starts to write the file `place`; `path` is what messages call it.
    pub(super) fn at(place: Place, path: &str, mode: Option<u32>) -> Outcome<Self> {
        let fault = |errno| on_path(errno, path);
        let old = match place.stat() {
            Ok(stat) => {
                refuse_special(file_type(&stat)).map_err(fault)?;
                Some(stat)
            }
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(fault(errno)),
        };
        let kept = old.as_ref().map(|s| s.st_mode & PERMISSIONS);
        let (file, temp) = create_hidden(&place.dir).map_err(fault)?;
        Ok(Self {
            place,
            path: path.to_owned(),
            temp,
            file,
            mode: mode.or(kept).unwrap_or(DEFAULT_MODE),
            owner: old.map(|s| (s.st_uid, s.st_gid)),
            renamed: false,
        })
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Outcome<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.file, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(on_path(errno, &self.path)),
            }
        }
        Ok(())
    }

    /// As [`WriteJob::finish`], with an owner and times of its own.
    pub(super) fn finish_as(mut self, owner: (u32, u32), times: &Timestamps) -> Outcome<()> {
        self.owner = Some(owner);
        futimens(&self.file, times).map_err(|e| on_path(e, &self.path))?;
        self.finish()
    }

    /// Puts the file in its place.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        let fault = |errno| on_path(errno, &self.path);
        if let Some((uid, gid)) = self.owner {
            // Refused for owners that this user namespace does not know; the file is then ours.
            let _ = fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
        fchmod(&self.file, Mode::from_raw_mode(self.mode)).map_err(fault)?;
        let Place { dir, name, .. } = &self.place;
        renameat(dir, self.temp.as_str(), dir, name.as_str()).map_err(fault)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for WriteJob {
    fn drop(&mut self) {
        if !self.renamed {
            // Given up, failed, or the connection is lost: nothing stays behind.
            let _ = unlinkat(&self.place.dir, self.temp.as_str(), AtFlags::empty());
        }
    }
}

fn create_hidden(dir: &OwnedFd) -> Result<(OwnedFd, String), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let seed = sys::now();
    for n in 0..TRIES {
        // Unique by O_EXCL; the clock only makes a clash unlikely.
        let name = format!(".stacyvm-{:x}", seed.wrapping_add(n.wrapping_mul(0x9e37_79b9)));
        match openat(dir, name.as_str(), flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => {}
            other => return other.map(|file| (file, name)),
        }
    }
    Err(Errno::EXIST)
}
