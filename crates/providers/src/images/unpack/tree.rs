//! A tree being written: every name is made beneath the root, by descriptor, following nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    fstatvfs, futimens, linkat, mkdirat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use types::Fault;

use super::super::Limits;
use super::super::fault::{disk_full, errno, from_io, shown};
use super::layer::{Below, Leaning};
use super::path::split;
use super::remove_tree;

/// Owner of what has none that can be kept.
const NOBODY: u32 = 65534;
/// A sandbox has this many ids.
const IDS: u64 = 65536;
/// How often the room left on the disk is looked at.
const ROOM_STEP: u64 = 64 << 20;
/// Directories whose mode and time wait for the end may take this much memory.
const LATER_BYTES: usize = 64 << 20;
/// Where something is mounted or written in every sandbox: a link or file there would mislead it.
const MOUNT_POINTS: [&str; 7] = ["proc", "dev", "sys", "etc", "tmp", "run", "workspace"];

/// Owner, mode and time of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Meta {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
}

impl Meta {
    pub(in super::super) fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: (0, 0) }
    }
}

/// What was made.
#[derive(Debug)]
pub(in super::super) struct Summary {
    pub size_bytes: u64,
    pub entries: u64,
    /// Of a layer: it holds what it does because of those below it.
    pub leaned: bool,
    pub notes: Vec<String>,
}

pub(in super::super) struct Tree {
    pub(super) root: Rc<OwnedFd>,
    pub(super) limits: Limits,
    /// What makes it one layer of several.
    pub(super) layer: Option<Leaning>,
    keep_owners: bool,
    /// The directory used last; most entries follow others of theirs.
    last: Option<Last>,
    /// Applied at the end, children first: writing into a directory changes its time, and an
    /// ordinary user can't write into one without permission.
    later: BTreeMap<Vec<u8>, Meta>,
    later_bytes: usize,
    size_bytes: u64,
    room_checked: u64,
    entries: u64,
    skipped: BTreeMap<&'static str, u64>,
}

/// A directory by the path it was asked for, and the one it has once links are followed.
struct Last {
    asked: Vec<u8>,
    real: Vec<u8>,
    fd: Rc<OwnedFd>,
}

impl Tree {
    /// A tree that becomes one layer of several.
    pub(in super::super) fn layer(root: OwnedFd, limits: Limits, below: Below) -> Self {
        Self { layer: Some(Leaning::new(below)), ..Self::new(root, limits) }
    }

    pub(in super::super) fn new(root: OwnedFd, limits: Limits) -> Self {
        Self {
            root: Rc::new(root),
            limits,
            layer: None,
            keep_owners: rustix::process::geteuid().is_root(),
            last: None,
            later: BTreeMap::new(),
            later_bytes: 0,
            size_bytes: 0,
            room_checked: 0,
            entries: 0,
            skipped: BTreeMap::new(),
        }
    }

    pub(in super::super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Remembers that something was left out or changed.
    pub(in super::super) fn note(&mut self, what: &'static str) {
        *self.skipped.entry(what).or_default() += 1;
    }

    /// Takes content into account, before it is written.
    pub(in super::super) fn grow(&mut self, bytes: u64) -> Result<(), Fault> {
        self.size_bytes = self.size_bytes.saturating_add(bytes);
        if self.size_bytes > self.limits.total_bytes {
            return Err(Fault::bad_request(format!(
                "it holds more than {} MiB, the most an image may",
                self.limits.total_bytes >> 20
            )));
        }
        if self.size_bytes >= self.room_checked {
            self.room_checked = self.size_bytes.saturating_add(ROOM_STEP);
            let disk = fstatvfs(&*self.root).map_err(errno("asking for free space failed"))?;
            if disk.f_bavail.saturating_mul(disk.f_frsize) < self.limits.reserve_bytes {
                return Err(disk_full());
            }
        }
        Ok(())
    }

    /// Makes a directory, or gives one that is there its owner, mode and time.
    pub(in super::super) fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault> {
        if path.is_empty() {
            return Ok(()); // the root's are ours to say, see `finish`
        }
        self.count(path)?;
        let (parent, name) = self.parent(path)?;
        match mkdirat(&*parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if file_type(&parent, name)? == FileType::Directory => {}
            Err(Errno::EXIST) => {
                self.clear(&parent, name)?;
                mkdirat(&*parent, name, Mode::RWXU).map_err(writing)?;
                if self.is_layer() {
                    // What stood here hid what is below; so does this.
                    self.make_opaque(&parent, name)?;
                }
            }
            Err(e) => return Err(writing(e)),
        }
        match self.real(path) {
            Some(real) => self.remember(&real, meta, true),
            None => self.remember(path, meta, true),
        }
    }

    /// Makes a file; `fill` writes its content. Takes the place of what had its name.
    pub(in super::super) fn file(
        &mut self,
        path: &[u8],
        meta: Meta,
        fill: impl FnOnce(&mut Self, &mut File) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.count(path)?;
        let (parent, name) = self.parent(path)?;
        let create = || {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let fd = match create() {
            Err(Errno::EXIST) => {
                self.clear(&parent, name)?;
                create()
            }
            other => other,
        };
        let mut file = File::from(fd.map_err(writing)?);
        fill(self, &mut file)?;
        let mode = self.own(meta, |uid, gid| fchown(&file, Some(uid), Some(gid)))?;
        fchmod(&file, mode).map_err(writing)?;
        futimens(&file, &times(meta.mtime)).map_err(writing)
    }

    /// Makes a symbolic link. Its target is text: it is never followed here.
    pub(in super::super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        meta: Meta,
    ) -> Result<(), Fault> {
        self.count(path)?;
        if target.is_empty() || target.len() > self.limits.path_bytes || target.contains(&0) {
            return Err(Fault::bad_request(format!(
                "the link '{}' has no usable target",
                shown(path)
            )));
        }
        let (parent, name) = self.parent(path)?;
        match symlinkat(target, &*parent, name) {
            Err(Errno::EXIST) => {
                self.clear(&parent, name)?;
                symlinkat(target, &*parent, name).map_err(writing)?;
            }
            other => other.map_err(writing)?,
        }
        self.own(meta, |uid, gid| {
            chownat(&*parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        })?;
        utimensat(&*parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(writing)
    }

    /// Gives a file that is in the tree another name.
    pub(in super::super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Fault> {
        self.count(path)?;
        if path == target {
            return Ok(());
        }
        let refused =
            |why: &str| Fault::bad_request(format!("the hard link '{}' {why}", shown(path)));
        if target.is_empty() {
            return Err(refused("names no file"));
        }
        let (from, old) = split(target);
        let from = if self.is_layer() { self.link_target(target) } else { self.walk(from, false) };
        let from =
            from?.ok_or_else(|| refused("names a file that was not in the archive before it"))?;
        let (parent, name) = self.parent(path)?;
        let link = || linkat(&*from, old, &*parent, name, AtFlags::empty());
        let linked = match link() {
            // Clearing could remove the target if it lay beneath what is replaced; then the
            // second try says so.
            Err(Errno::EXIST) => {
                self.clear(&parent, name)?;
                link()
            }
            other => other,
        };
        match linked {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(refused("names a file that was not in the archive before it")),
            Err(Errno::PERM) => Err(refused("names something that is not a file")),
            Err(Errno::MLINK) => Err(refused("is one too many")),
            Err(e) => Err(writing(e)),
        }
    }

    /// Applies what waited, and checks that a sandbox can be made of it.
    pub(in super::super) fn finish(mut self) -> Result<Summary, Fault> {
        if self.entries == 0 && !self.is_layer() {
            return Err(Fault::bad_request("there is nothing in it"));
        }
        self.refuse_misleading()?;
        self.settle_layer()?;
        while let Some((path, meta)) = self.later.pop_last() {
            self.apply(&path, meta)?;
        }
        let root = Meta::root(0o755);
        let dir = Rc::clone(&self.root);
        self.settle(&dir, root)?;
        let notes = self.skipped.iter().map(|(what, n)| format!("{n} × {what}")).collect();
        let leaned = self.layer.is_some_and(|layer| layer.leaned);
        Ok(Summary { size_bytes: self.size_bytes, entries: self.entries, leaned, notes })
    }

    fn refuse_misleading(&self) -> Result<(), Fault> {
        for name in MOUNT_POINTS {
            match statat(&*self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(s) if FileType::from_raw_mode(s.st_mode) != FileType::Directory => {
                    return Err(Fault::bad_request(format!("'/{name}' in it is not a directory")));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(e) => return Err(writing(e)),
            }
        }
        if self.is_layer() {
            return Ok(());
        }
        let has = |name: &str| statat(&*self.root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if has("oci-layout") || (has("manifest.json") && !has("etc") && !has("usr") && !has("bin"))
        {
            return Err(Fault::bad_request(
                "this is a saved image (docker save or an OCI layout), not a root file system; \
                 `docker export` of a container of it makes one",
            ));
        }
        Ok(())
    }

    /// Counts something that is made; bounded, since names cost disk as well.
    pub(super) fn count(&mut self, path: &[u8]) -> Result<(), Fault> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Fault::bad_request(format!(
                "it holds more than {} files, the most an image may",
                self.limits.entries
            )));
        }
        if path.is_empty() {
            return Err(Fault::bad_request("its root is not a directory"));
        }
        Ok(())
    }

    /// The directory of `path`, made where it is missing, and the name in it.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(Rc<OwnedFd>, &'p [u8]), Fault> {
        let (parent, name) = split(path);
        if let Some(last) = &self.last
            && last.asked == parent
        {
            return Ok((Rc::clone(&last.fd), name));
        }
        let (fd, real) = if !self.is_layer() {
            (self.walk(parent, true)?.expect("what is missing is made"), parent.to_vec())
        } else {
            match self.walk(parent, false) {
                Ok(Some(fd)) => (fd, parent.to_vec()),
                Ok(None) | Err(_) => self.lean(parent)?,
            }
        };
        self.last = Some(Last { asked: parent.to_vec(), real, fd: Rc::clone(&fd) });
        Ok((fd, name))
    }

    /// The path that something just made has, if a link was on the way to it.
    fn real(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (parent, name) = split(path);
        let last = self.last.as_ref().filter(|last| last.asked == parent && last.real != parent)?;
        Some(if last.real.is_empty() {
            name.to_vec()
        } else {
            [&last.real, &b"/"[..], name].concat()
        })
    }

    /// Opens a directory one component at a time. `None` if it is not there and not to be made.
    pub(super) fn walk(&mut self, path: &[u8], make: bool) -> Result<Option<Rc<OwnedFd>>, Fault> {
        let mut at = Rc::clone(&self.root);
        let mut end = 0;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            end += name.len() + usize::from(end > 0);
            let next = match open_dir(&at, name) {
                Err(Errno::NOENT) if make => {
                    self.count(&path[..end])?;
                    mkdirat(&*at, name, Mode::RWXU).map_err(writing)?;
                    self.remember(&path[..end], Meta::root(0o755), false)?;
                    open_dir(&at, name)
                }
                Err(Errno::NOENT) => return Ok(None),
                other => other,
            };
            at = Rc::new(next.map_err(|e| match e {
                Errno::NOTDIR | Errno::LOOP => Fault::bad_request(format!(
                    "a path in it goes through '{}', which is not a directory",
                    shown(&path[..end])
                )),
                e => writing(e),
            })?);
        }
        Ok(Some(at))
    }

    /// Removes what is in the way of a later entry of the same name.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
        self.last = None; // it may lie beneath what goes
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_tree(parent, name).map_err(|e| from_io("writing the image failed", e))
            }
            Err(e) => Err(writing(e)),
        }
    }

    pub(super) fn remember(&mut self, path: &[u8], meta: Meta, replace: bool) -> Result<(), Fault> {
        if !replace && self.later.contains_key(path) {
            return Ok(());
        }
        if self.later_bytes > LATER_BYTES && !self.later.contains_key(path) {
            // Too many to remember: its time will be that of the last write into it.
            let open = if self.keep_owners { 0 } else { 0o700 };
            return self.apply(path, Meta { mode: meta.mode | open, ..meta });
        }
        if self.later.insert(path.to_vec(), meta).is_none() {
            self.later_bytes += path.len() + 128;
        }
        Ok(())
    }

    fn apply(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault> {
        let (parent, name) = split(path);
        let Ok(Some(parent)) = self.walk(parent, false) else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&*parent, name, flags, Mode::empty()) {
            Ok(dir) => self.settle(&dir, meta),
            // Replaced by something else since.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(writing(e)),
        }
    }

    fn settle(&mut self, dir: &OwnedFd, meta: Meta) -> Result<(), Fault> {
        let mode = self.own(meta, |uid, gid| fchown(dir, Some(uid), Some(gid)))?;
        fchmod(dir, mode).map_err(writing)?;
        futimens(dir, &times(meta.mtime)).map_err(writing)
    }

    /// Gives something its owner, and says which mode it may have with that.
    fn own(
        &mut self,
        meta: Meta,
        chown: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>,
    ) -> Result<Mode, Fault> {
        let mode = Mode::from_raw_mode(meta.mode & 0o7777);
        if !self.keep_owners {
            return Ok(mode);
        }
        let kept = meta.uid < IDS && meta.gid < IDS;
        let id = |n: u64| u32::try_from(n).ok().filter(|_| n < IDS).unwrap_or(NOBODY);
        let made = chown(Uid::from_raw(id(meta.uid)), Gid::from_raw(id(meta.gid)));
        match made {
            Ok(()) if kept => Ok(mode),
            Ok(()) => {
                self.note("owner above 65535, now nobody");
                Ok(mode.difference(Mode::SUID | Mode::SGID))
            }
            // Root of a user namespace that has not all ids.
            Err(Errno::PERM | Errno::INVAL) => {
                self.note("owner that could not be kept");
                Ok(mode.difference(Mode::SUID | Mode::SGID))
            }
            Err(e) => Err(writing(e)),
        }
    }
}

fn open_dir(at: &impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn file_type(at: &OwnedFd, name: &[u8]) -> Result<FileType, Fault> {
    let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(writing)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn times((secs, nanos): (i64, u32)) -> Timestamps {
    let t = Timespec { tv_sec: secs, tv_nsec: i64::from(nanos.min(999_999_999)) };
    Timestamps { last_access: t, last_modification: t }
}

pub(super) fn writing(e: Errno) -> Fault {
    match e {
        Errno::NAMETOOLONG | Errno::ILSEQ => {
            Fault::bad_request("a name in it can't be stored").caused_by(std::io::Error::from(e))
        }
        e => from_io("writing the image failed", e.into()),
    }
}
