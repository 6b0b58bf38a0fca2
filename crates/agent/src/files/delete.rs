//! Deleting, also whole trees: without recursion, with few descriptors however deep, never through
//! a link.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use protocol::agent::Body;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::path::Place;
use super::scan::Scan;
use super::{Slice, Step, Tree};
use crate::error::{Outcome, fail, on_path};

/// Directories kept open on the way down; higher ones are opened again through `..`, and checked
/// to be the same, since a program inside may move things meanwhile.
const OPEN: usize = 16;
/// How often a directory is read again that somebody keeps filling.
const ROUNDS: u32 = 16;

pub(crate) struct DeleteJob {
    top: Place,
    path: String,
    /// From the top down to where work goes on; the last is always open.
    levels: Vec<Level>,
}

struct Level {
    name: CString,
    device: u64,
    inode: u64,
    scan: Option<Scan>,
    /// Names that were read and not yet deleted.
    names: Vec<(CString, FileType)>,
    rounds: u32,
}

impl DeleteJob {
    /// Deletes what `path` names itself. `None` when that is done already.
    pub(crate) fn start(tree: &Tree, path: &str, recursive: bool) -> Outcome<Option<Self>> {
        let fault = |errno| on_path(errno, path);
        let top = tree.place(&tree.absolute(path)?)?;
        let name = CString::new(top.name.as_str()).map_err(|_| fault(Errno::INVAL))?;
        match remove(&top.dir, &name, FileType::Unknown) {
            Ok(()) => return Ok(None),
            Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {}
            Err(errno) => return Err(fault(errno)),
        }
        let level = Level::open(&top.dir, name).map_err(fault)?;
        Ok(Some(Self { top, path: path.to_owned(), levels: vec![level] }))
    }

    pub(super) fn step(&mut self, slice: &Slice) -> Step {
        loop {
            match self.once() {
                Ok(false) => {}
                Ok(true) => return Step::Done(Ok(Body::Done)),
                Err(error) => return Step::Done(Err(error)),
            }
            if slice.is_over() {
                return Step::Again;
            }
        }
    }

    /// Deletes one name, reads one piece of a directory, or goes up; `true` at the end.
    fn once(&mut self) -> Outcome<bool> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return Ok(true) };
        let fault = |errno| on_path(errno, &self.path);
        let Some(scan) = &level.scan else { return Err(moved(&self.path)) };
        if let Some((name, kind)) = level.names.pop() {
            match remove(&scan.dir, &name, kind) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let below = Level::open(&scan.dir, name).map_err(fault)?;
                    if depth >= OPEN {
                        self.levels[depth - OPEN].scan = None;
                    }
                    self.levels.push(below);
                }
                Err(errno) => return Err(fault(errno)),
            }
            return Ok(false);
        }
        let names = &mut level.names;
        if scan.next(|name, kind| names.push((name, kind))).map_err(fault)? {
            return Ok(false);
        }
        self.leave()
    }

    /// The last level is read to its end: removes it, or reads it again if it is still not empty.
    fn leave(&mut self) -> Outcome<bool> {
        let Some(mut level) = self.levels.pop() else { return Ok(true) };
        let fault = |errno| on_path(errno, &self.path);
        if let Some(parent) = self.levels.last_mut()
            && parent.scan.is_none()
            && let Some(scan) = &level.scan
        {
            parent.reopen(&scan.dir, &self.path)?;
        }
        let dir = match self.levels.last() {
            None => &self.top.dir,
            Some(parent) => match &parent.scan {
                Some(scan) => &scan.dir,
                None => return Err(moved(&self.path)),
            },
        };
        match unlinkat(dir, level.name.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(self.levels.is_empty()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.rounds < ROUNDS => {
                level.rounds += 1;
                if let Some(scan) = &level.scan {
                    scan.rewind().map_err(fault)?;
                }
                self.levels.push(level);
                Ok(false)
            }
            Err(errno) => Err(fault(errno)),
        }
    }
}

impl Level {
    fn open(dir: &OwnedFd, name: CString) -> Result<Self, Errno> {
        let dir = open_dir(dir, &name)?;
        let (device, inode) = identity(&fstat(&dir)?);
        Ok(Self { name, device, inode, scan: Some(Scan { dir }), names: Vec::new(), rounds: 0 })
    }

    /// Opens this level again, from below.
    fn reopen(&mut self, below: &OwnedFd, path: &str) -> Outcome<()> {
        let fault = |errno| on_path(errno, path);
        let dir = open_dir(below, c"..").map_err(fault)?;
        if identity(&fstat(&dir).map_err(fault)?) != (self.device, self.inode) {
            return Err(moved(path));
        }
        self.scan = Some(Scan { dir });
        Ok(())
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn moved(path: &str) -> protocol::agent::AgentError {
    let text = format!("{}: was moved while it was deleted", crate::error::shown(path));
    fail(protocol::agent::AgentErrorCode::Conflict, text)
}

fn open_dir(dir: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(dir, name, flags, Mode::empty())
}

/// Removes a file or an empty directory.
fn remove(dir: &OwnedFd, name: &CString, kind: FileType) -> Result<(), Errno> {
    if kind != FileType::Directory {
        match unlinkat(dir, name.as_c_str(), AtFlags::empty()) {
            // Some file systems say EPERM for a directory.
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => {
                return match unlinkat(dir, name.as_c_str(), AtFlags::REMOVEDIR) {
                    Err(Errno::NOTDIR) => Err(errno),
                    other => other,
                };
            }
            other => return other,
        }
    }
    match unlinkat(dir, name.as_c_str(), AtFlags::REMOVEDIR) {
        Err(Errno::NOTDIR) => unlinkat(dir, name.as_c_str(), AtFlags::empty()),
        other => other,
    }
}
