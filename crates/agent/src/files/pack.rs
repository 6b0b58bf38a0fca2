//! Sending a directory with all that is in it. Links are told, never followed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use protocol::agent::{Body, MAX_PAYLOAD, TREE_PATH, TreeEntry, TreeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::entry::{PERMISSIONS, file_type};
use super::scan::Scan;
use super::{Port, Slice, Step, Tree};
use crate::error::{Outcome, bad_request, on_path};

/// Directories in one another. Each holds a descriptor while it is read.
const DEPTH: usize = 200;
/// Bytes of paths that are remembered to find hard links again; further ones come as files.
const LINKS: usize = 4 << 20;

pub(crate) struct PackJob {
    path: String,
    levels: Vec<Level>,
    /// The file that is being sent, and how much of it is still to come.
    file: Option<(OwnedFd, u64)>,
    /// What waits to be sent.
    ready: Vec<u8>,
    sent: usize,
    links: BTreeMap<(u64, u64), Vec<u8>>,
    link_bytes: usize,
}

struct Level {
    scan: Scan,
    path: Vec<u8>,
    names: Vec<CString>,
}

impl PackJob {
    pub(crate) fn start(tree: &Tree, path: &str) -> Outcome<Self> {
        let fault = |errno| on_path(errno, path);
        let absolute = tree.absolute(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let dir = tree.open(&absolute, flags).map_err(fault)?;
        let mut job = Self {
            path: path.to_owned(),
            levels: Vec::new(),
            file: None,
            ready: Vec::new(),
            sent: 0,
            links: BTreeMap::new(),
            link_bytes: 0,
        };
        let stat = fstat(&dir).map_err(fault)?;
        job.tell(TreeKind::Directory, &stat, 0, Vec::new(), Vec::new());
        job.levels.push(Level { scan: Scan { dir }, path: Vec::new(), names: Vec::new() });
        Ok(job)
    }

    pub(super) fn step(&mut self, port: &mut Port<'_>, slice: &Slice) -> Step {
        loop {
            if self.sent < self.ready.len() {
                let Some(sent) = port.data(&self.ready[self.sent..]) else { return Step::Wait };
                self.sent += sent;
            } else {
                self.ready.clear();
                self.sent = 0;
                match self.fill() {
                    Ok(true) => {}
                    Ok(false) => return Step::Done(Ok(Body::Done)),
                    Err(error) => return Step::Done(Err(error)),
                }
            }
            if slice.is_over() {
                return Step::Again;
            }
        }
    }

    /// Makes more ready, about half a frame of it; `false` when there is nothing any more.
    fn fill(&mut self) -> Outcome<bool> {
        while self.ready.len() < MAX_PAYLOAD / 2 {
            let more = if self.file.is_some() { self.content()? } else { self.next()? };
            if !more {
                break;
            }
        }
        Ok(!self.ready.is_empty())
    }

    /// A piece of the file. Its size was told: what it lost since is sent as zeros.
    fn content(&mut self) -> Outcome<bool> {
        let Some((file, left)) = &mut self.file else { return Ok(true) };
        let at = self.ready.len();
        let max = usize::try_from(*left).unwrap_or(usize::MAX).min(MAX_PAYLOAD / 2);
        self.ready.resize(at + max, 0);
        let got = match rustix::io::read(&*file, &mut self.ready[at..]) {
            Ok(0) => max,
            Ok(got) => got,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(on_path(errno, &self.path)),
        };
        self.ready.truncate(at + got);
        *left -= got as u64;
        if *left == 0 {
            self.file = None;
        }
        Ok(true)
    }

    /// The next entry; `false` after the last.
    fn next(&mut self) -> Outcome<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let Some(name) = level.names.pop() else {
            let names = &mut level.names;
            let more = level.scan.next(|name, _| names.push(name));
            if !more.map_err(|e| on_path(e, &self.path))? {
                self.levels.pop();
            }
            return Ok(true);
        };
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        match self.entry(&name, path) {
            // It went away, or became something else, since it was named.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(true),
            Err(Errno::MLINK) => {
                Err(bad_request(format!("more than {DEPTH} directories in one another")))
            }
            Err(errno) => Err(on_path(errno, &self.path)),
            Ok(()) => Ok(true),
        }
    }

    fn entry(&mut self, name: &CString, path: Vec<u8>) -> Result<(), Errno> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last() else { return Ok(()) };
        let dir = &level.scan.dir;
        let stat = statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        if path.len() > TREE_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match file_type(&stat) {
            FileType::Symlink => {
                let link = readlinkat(dir, name.as_c_str(), Vec::new())?.into_bytes();
                if link.len() <= TREE_PATH {
                    self.tell(TreeKind::Symlink, &stat, 0, path, link);
                }
            }
            FileType::Directory => {
                if depth >= DEPTH {
                    return Err(Errno::MLINK);
                }
                let dir = openat(dir, name.as_c_str(), flags | OFlags::DIRECTORY, Mode::empty())?;
                self.tell(TreeKind::Directory, &fstat(&dir)?, 0, path.clone(), Vec::new());
                self.levels.push(Level { scan: Scan { dir }, path, names: Vec::new() });
            }
            FileType::RegularFile => {
                let file = openat(dir, name.as_c_str(), flags, Mode::empty())?;
                let stat = fstat(&file)?;
                if file_type(&stat) != FileType::RegularFile {
                    return Err(Errno::NXIO);
                }
                if let Some(first) = self.known(&stat, &path) {
                    self.tell(TreeKind::HardLink, &stat, 0, path, first);
                    return Ok(());
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.tell(TreeKind::File, &stat, size, path, Vec::new());
                self.file = (size > 0).then_some((file, size));
            }
            // Nothing of theirs would survive.
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
        Ok(())
    }

    /// The first name of a file with several, once that has been told.
    fn known(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        let first = self.links.get(&key).cloned();
        if first.is_none() && self.link_bytes < LINKS {
            self.link_bytes += path.len() + size_of::<((u64, u64), Vec<u8>)>();
            self.links.insert(key, path.to_vec());
        }
        first
    }

    fn tell(&mut self, kind: TreeKind, stat: &Stat, size: u64, path: Vec<u8>, link: Vec<u8>) {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
        let (mode, mtime) = (stat.st_mode & PERMISSIONS, (stat.st_mtime, nanos));
        TreeEntry { kind, mode, uid: stat.st_uid, gid: stat.st_gid, mtime, size, path, link }
            .encode(&mut self.ready);
    }
}
