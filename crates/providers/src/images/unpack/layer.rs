//! What a tree needs to be one layer of several: what it deletes of those below, and what it takes
//! from them where an archive leaves something unsaid.
//!
//! Unpackers of container images write each layer over the merged tree of those before it. Here a
//! layer gets a tree of its own, so three things have to be looked up below: the owner and mode of
//! a directory that the archive only implies, a link on the way to a file, and the file that a hard
//! link names. A layer that had to look **leans** on those below and is kept for them alone; others
//! are the same on any ground.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use types::Fault;

use super::super::fault::{errno, shown};
use super::merged::{Found, Merged, OPAQUE, look, names, open};
use super::path::split;
use super::tree::{Meta, Tree, writing};

/// Links on the way to one file.
const MOST_LINKS: u32 = 40;
/// Memory for names to be deleted, which wait for the end.
const MOST_DELETED: usize = 64 << 20;

/// Gives the layers below, topmost first; may wait for them.
pub(in super::super) type Below = Box<dyn FnOnce() -> Result<Vec<OwnedFd>, Fault>>;

/// The layer's part of a [`Tree`].
pub(super) struct Leaning {
    below: Option<Below>,
    got: Option<Merged>,
    pub leaned: bool,
    deleted: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Leaning {
    pub(super) fn new(below: Below) -> Self {
        Self {
            below: Some(below),
            got: None,
            leaned: false,
            deleted: BTreeSet::new(),
            opaque: BTreeSet::new(),
            bytes: 0,
        }
    }
}

/// What the name of an entry says of lower layers (`.wh.` of the image specification).
pub(super) enum Mark {
    Deleted(Vec<u8>),
    Opaque(Vec<u8>),
    /// Notes of old storage drivers to themselves.
    Nothing,
}

/// `None`: an entry like any other.
pub(super) fn mark(path: &[u8]) -> Option<Mark> {
    let (parent, name) = split(path);
    let rest = name.strip_prefix(b".wh.")?;
    if rest == b".wh..opq" {
        return Some(Mark::Opaque(parent.to_vec()));
    }
    if rest.is_empty() || rest.starts_with(b".wh.") {
        return Some(Mark::Nothing);
    }
    Some(Mark::Deleted(joined(parent, rest)))
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

impl Tree {
    pub(super) fn is_layer(&self) -> bool {
        self.layer.is_some()
    }

    /// Remembers what is to be hidden of lower layers; done at the end, so that what this layer has
    /// itself is not touched, in whatever order its entries come.
    pub(super) fn hide(&mut self, mark: Mark) -> Result<(), Fault> {
        let Some(layer) = &mut self.layer else { return Ok(()) };
        let (set, path) = match mark {
            Mark::Deleted(path) if matches!(&path[..], b"." | b"..") => return Ok(()),
            Mark::Deleted(path) => (&mut layer.deleted, path),
            Mark::Opaque(path) => (&mut layer.opaque, path),
            Mark::Nothing => return Ok(()),
        };
        layer.bytes += path.len() + 128;
        set.insert(path);
        if layer.bytes > MOST_DELETED {
            return Err(Fault::bad_request("a layer of it deletes too many files"));
        }
        Ok(())
    }

    /// Hides what lower layers have in place of something that can't be kept, unless an entry of
    /// this layer took its place already.
    pub(super) fn leave_out(&mut self, path: Vec<u8>) -> Result<(), Fault> {
        if path.is_empty() { Ok(()) } else { self.hide(Mark::Deleted(path)) }
    }

    /// The merged tree: this one, and what lies below it.
    fn merged(&mut self) -> Result<Merged, Fault> {
        let own = open(&*self.root, b".").map_err(errno("reading the image failed"))?;
        let Some(layer) = &mut self.layer else { return Ok(vec![Rc::new(own)]) };
        layer.leaned = true;
        if let Some(below) = layer.below.take() {
            layer.got = Some(below()?.into_iter().map(Rc::new).collect());
        }
        let below = layer.got.iter().flatten().cloned();
        Ok(std::iter::once(Rc::new(own)).chain(below).collect())
    }

    /// What lies below this tree alone.
    fn beneath(&mut self) -> Result<Merged, Fault> {
        let mut merged = self.merged()?;
        merged.remove(0);
        Ok(merged)
    }

    /// The directory `path` of this tree, made with what lower layers say of it; links on the way,
    /// here or below, are followed within the image.
    pub(super) fn lean(&mut self, path: &[u8]) -> Result<(Rc<OwnedFd>, Vec<u8>), Fault> {
        let real = self.real_path(path)?;
        let mut at = Rc::clone(&self.root);
        let mut seen = self.merged()?;
        let mut end = 0;
        for name in real.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            end += name.len() + usize::from(end > 0);
            let path = &real[..end];
            let (below, stat) = match look(&seen, name)? {
                Found::Directory(dirs, stat) => (dirs, Some(stat)),
                Found::Nothing => (Vec::new(), None),
                Found::Other(..) => return Err(not_a_directory(path)),
            };
            match mkdirat(&*at, name, Mode::RWXU) {
                Ok(()) => {
                    self.count(path)?;
                    let meta = stat.as_ref().map_or_else(|| Meta::root(0o755), Meta::of);
                    self.remember(path, meta, false)?;
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(writing(e)),
            }
            at = Rc::new(open(&*at, name).map_err(|e| match e {
                Errno::NOTDIR | Errno::LOOP => not_a_directory(path),
                e => writing(e),
            })?);
            seen = below;
        }
        Ok((at, real))
    }

    /// Where a directory's path leads once links are followed. What is not there stays as named.
    fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>, Fault> {
        let parts = |text: &[u8]| -> Vec<Vec<u8>> {
            let parts = text.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".");
            parts.map(<[u8]>::to_vec).rev().collect()
        };
        let mut todo = parts(path);
        let mut way: Vec<Vec<u8>> = Vec::new();
        let mut at = self.merged()?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                way.pop();
                at = self.descend(&way)?;
                continue;
            }
            match look(&at, &name)? {
                Found::Nothing => (at, _) = (Vec::new(), way.push(name)),
                Found::Directory(dirs, _) => (at, _) = (dirs, way.push(name)),
                Found::Other(dir, stat)
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink =>
                {
                    links += 1;
                    let target = readlinkat(&*dir, name.as_slice(), Vec::new());
                    let target = target.map_err(errno("reading the image failed"))?.into_bytes();
                    if links > MOST_LINKS || todo.len() > self.limits.depth {
                        return Err(not_a_directory(path));
                    }
                    if target.starts_with(b"/") {
                        way.clear();
                        at = self.merged()?;
                    }
                    todo.extend(parts(&target));
                }
                Found::Other(..) => return Err(not_a_directory(path)),
            }
        }
        super::relative(&way.join(&b'/'), &self.limits)
    }

    /// A directory of the merged tree by its real path; none where it is not there.
    fn descend(&mut self, way: &[Vec<u8>]) -> Result<Merged, Fault> {
        let mut at = self.merged()?;
        for name in way {
            at = match look(&at, name)? {
                Found::Directory(dirs, _) => dirs,
                Found::Nothing | Found::Other(..) => return Ok(Vec::new()),
            };
        }
        Ok(at)
    }

    /// The directory of this tree with the file that a hard link names, brought here from a lower
    /// layer if it has to be.
    pub(super) fn link_target(&mut self, target: &[u8]) -> Result<Option<Rc<OwnedFd>>, Fault> {
        let (from, name) = split(target);
        let there =
            |dir: &Rc<OwnedFd>| rustix::fs::statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        match self.walk(from, false) {
            Ok(Some(dir)) if there(&dir) => return Ok(Some(dir)),
            Ok(_) | Err(_) => {}
        }
        let real = self.real_path(from)?;
        match self.walk(&real, false) {
            Ok(Some(dir)) if there(&dir) => return Ok(Some(dir)),
            Ok(_) | Err(_) => {}
        }
        if self.copy_up(&joined(&real, name))? { self.walk(&real, false) } else { Ok(None) }
    }

    /// Brings a file of a lower layer into this one. False if there is none.
    fn copy_up(&mut self, path: &[u8]) -> Result<bool, Fault> {
        let (parent, name) = split(path);
        let mut at = self.beneath()?;
        for part in parent.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            at = match look(&at, part)? {
                Found::Directory(dirs, _) => dirs,
                Found::Nothing | Found::Other(..) => return Ok(false),
            };
        }
        let Found::Other(dir, stat) = look(&at, name)? else { return Ok(false) };
        let meta = Meta::of(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let failed = "reading the image failed";
                let from = openat(&*dir, name, flags, Mode::empty()).map_err(errno(failed))?;
                self.file(path, meta, |tree, to| {
                    tree.grow(u64::try_from(stat.st_size).unwrap_or(0))?;
                    std::io::copy(&mut File::from(from), to)
                        .map_err(super::super::fault::io("writing the image failed"))?;
                    Ok(())
                })?;
                Ok(true)
            }
            FileType::Symlink => {
                let target = readlinkat(&*dir, name, Vec::new()).map_err(writing)?;
                self.symlink(path, target.as_bytes(), meta)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Hides what is to be hidden, where there is something to hide.
    pub(super) fn settle_layer(&mut self) -> Result<(), Fault> {
        let Some(layer) = &mut self.layer else { return Ok(()) };
        let (deleted, mut opaque) =
            (std::mem::take(&mut layer.deleted), std::mem::take(&mut layer.opaque));
        if opaque.remove(&Vec::new()) {
            // The kernel takes no opaque root: each name is hidden by itself.
            let beneath = self.beneath()?;
            for name in names(&beneath, self.limits.entries)? {
                self.delete(&name)?;
            }
        }
        for path in opaque {
            let (parent, name) = split(&path);
            if self.is_below(parent, name)? {
                let (dir, real) = self.lean(parent)?;
                let path = joined(&real, name);
                match mkdirat(&*dir, name, Mode::RWXU) {
                    Ok(()) => {
                        self.count(&path)?;
                        self.remember(&path, Meta::root(0o755), false)?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(writing(e)),
                }
                self.make_opaque(&dir, name)?;
            }
        }
        for path in deleted {
            self.delete(&path)?;
        }
        Ok(())
    }

    /// Hides one name of lower layers: by a whiteout, or, where this layer has a directory of that
    /// name, by making it opaque. A file of this layer hides it already.
    fn delete(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = split(path);
        if !self.is_below(parent, name)? {
            return Ok(());
        }
        let (dir, _) = self.lean(parent)?;
        let kind = FileType::CharacterDevice;
        match rustix::fs::mknodat(&*dir, name, kind, Mode::empty(), 0) {
            Ok(()) => self.count(path),
            Err(Errno::EXIST) => self.make_opaque(&dir, name),
            Err(e) => Err(writing(e)),
        }
    }

    /// Whether lower layers show something of this name.
    fn is_below(&mut self, parent: &[u8], name: &[u8]) -> Result<bool, Fault> {
        let Ok(real) = self.real_path(parent) else { return Ok(false) };
        let way: Vec<Vec<u8>> =
            real.split(|&b| b == b'/').filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect();
        let mut at = self.descend(&way)?;
        // What this layer has itself stands first.
        if !at.is_empty() && matches!(self.walk(&real, false), Ok(Some(_))) {
            at.remove(0);
        }
        Ok(!matches!(look(&at, name)?, Found::Nothing))
    }

    /// Hides what lower layers have beneath a directory of this one. Something else of that name
    /// needs nothing.
    pub(super) fn make_opaque(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
        let dir = match open(parent, name) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(writing(e)),
        };
        let mut last = Errno::OPNOTSUPP;
        for key in OPAQUE {
            match rustix::fs::fsetxattr(&dir, key, b"y", XattrFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(e) => last = e,
            }
        }
        Err(errno("the disk of the image store can't mark directories")(last))
    }
}

impl Meta {
    fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: u64::from(stat.st_uid),
            gid: u64::from(stat.st_gid),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }
    }
}

fn not_a_directory(path: &[u8]) -> Fault {
    Fault::bad_request(format!(
        "a path in it goes through '{}', which is not a directory",
        shown(path)
    ))
}
