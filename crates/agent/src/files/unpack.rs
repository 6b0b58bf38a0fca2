//! Writing a tree of files beneath one directory. What its entries say is hostile: every name is
//! opened by itself, and no link is ever followed.

use std::os::fd::OwnedFd;

use protocol::agent::{AgentErrorCode, TreeEntry, TreeError, TreeKind, TreePart, TreeReader};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    futimens, linkat, mkdirat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::Tree;
use super::entry::{PERMISSIONS, file_type};
use super::path::Place;
use super::write::WriteJob;
use crate::error::{Outcome, bad_request, fail, on_path};

/// Directories in one another.
const DEPTH: usize = 200;
/// Bytes of the paths of directories whose times are set at the end, after what is put into them;
/// further ones get the time of their writing.
const DIRECTORIES: usize = 4 << 20;

pub(crate) struct UnpackJob {
    reader: TreeReader,
    under: Under,
}

struct Under {
    root: OwnedFd,
    /// Whether the directory was made for this: then it gets what the tree says of it.
    made: bool,
    file: Option<Open>,
    directories: Vec<(Vec<u8>, (i64, u32))>,
    directory_bytes: usize,
}

/// A file whose content is coming.
struct Open {
    job: WriteJob,
    left: u64,
    entry: TreeEntry,
}

/// What taking in a tree fails with.
struct Refused(protocol::agent::AgentError);

impl From<TreeError> for Refused {
    fn from(error: TreeError) -> Self {
        Self(bad_request(format!("the tree is broken: {error}")))
    }
}

impl UnpackJob {
    pub(crate) fn start(tree: &Tree, path: &str) -> Outcome<Self> {
        let absolute = tree.absolute(path)?;
        let made = !tree.lexists(&absolute);
        let root = tree.make_dirs(&absolute).map_err(|e| on_path(e, path))?;
        let (file, directories) = (None, Vec::new());
        let under = Under { root, made, file, directories, directory_bytes: 0 };
        Ok(Self { reader: TreeReader::default(), under })
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Outcome<()> {
        let under = &mut self.under;
        let taken = self.reader.take(bytes, |part| match part {
            TreePart::Entry(entry) => under.entry(entry).map_err(Refused),
            TreePart::Content(bytes) => under.content(bytes).map_err(Refused),
        });
        taken.map_err(|Refused(error)| error)
    }

    pub(crate) fn finish(mut self) -> Outcome<()> {
        if !self.reader.is_whole() {
            return Err(bad_request("the tree is cut short"));
        }
        // From below, so that none changes the time of one above it.
        for (path, mtime) in std::mem::take(&mut self.under.directories).into_iter().rev() {
            let dir = match self.under.place(&path) {
                Ok(Some(place)) => open_dir(&place.dir, &place.name),
                Ok(None) => open_dir(&self.under.root, "."),
                Err(_) => continue,
            };
            // It may be gone by now: others live here, too.
            let _ = dir.and_then(|dir| futimens(dir, &times(mtime)));
        }
        Ok(())
    }
}

impl Under {
    fn entry(&mut self, entry: TreeEntry) -> Outcome<()> {
        let text = shown(&entry.path);
        let fault = |errno| on_path(errno, &text);
        let Some(place) = self.place(&entry.path)? else {
            if entry.kind == TreeKind::Directory && self.made {
                let dir = open_dir(&self.root, ".").map_err(fault)?;
                adorn(&dir, &entry).map_err(fault)?;
                self.remember(entry);
            }
            return Ok(());
        };
        match entry.kind {
            TreeKind::File => {
                // A link that lies there is replaced like a file, and not followed.
                if place.stat().is_ok_and(|stat| file_type(&stat) == FileType::Symlink) {
                    make_room(&place).map_err(fault)?;
                }
                let job = WriteJob::at(place, &text, Some(entry.mode & PERMISSIONS))?;
                let left = entry.size;
                self.file = Some(Open { job, left, entry });
                self.close_if_whole()
            }
            TreeKind::Directory => {
                match mkdirat(&place.dir, place.name.as_str(), Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(fault(errno)),
                }
                let dir = open_dir(&place.dir, &place.name).map_err(fault)?;
                adorn(&dir, &entry).map_err(fault)?;
                self.remember(entry);
                Ok(())
            }
            TreeKind::Symlink => {
                make_room(&place).map_err(fault)?;
                symlink(&place, &entry).map_err(fault)
            }
            TreeKind::HardLink => {
                let Some(from) = self.place(&entry.link)? else {
                    return Err(fault(Errno::ISDIR));
                };
                let stat = from.stat().map_err(|e| on_path(e, &shown(&entry.link)))?;
                if file_type(&stat) != FileType::RegularFile {
                    return Err(fault(Errno::NXIO));
                }
                let same = place.stat();
                if same.is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino)) {
                    return Ok(());
                }
                make_room(&place).map_err(fault)?;
                let (to, none) = (place.name.as_str(), AtFlags::empty());
                linkat(&from.dir, from.name.as_str(), &place.dir, to, none).map_err(fault)
            }
        }
    }

    fn content(&mut self, bytes: &[u8]) -> Outcome<()> {
        let Some(open) = &mut self.file else { return Ok(()) };
        open.job.push(bytes)?;
        open.left = open.left.saturating_sub(bytes.len() as u64);
        self.close_if_whole()
    }

    fn close_if_whole(&mut self) -> Outcome<()> {
        match self.file.take_if(|open| open.left == 0) {
            Some(Open { job, entry, .. }) => {
                job.finish_as((entry.uid, entry.gid), &times(entry.mtime))
            }
            None => Ok(()),
        }
    }

    fn remember(&mut self, entry: TreeEntry) {
        if self.directory_bytes < DIRECTORIES {
            self.directory_bytes += entry.path.len() + size_of::<(Vec<u8>, (i64, u32))>();
            self.directories.push((entry.path, entry.mtime));
        }
    }

    /// The directory that an entry lies in, made where missing, and its name there; `None` for the
    /// tree's own directory.
    fn place(&self, path: &[u8]) -> Outcome<Option<Place>> {
        let text = std::str::from_utf8(path).map_err(|_| bad_request("a name is not UTF-8"))?;
        if text.contains('\0') {
            return Err(bad_request("a name holds a zero byte"));
        }
        let mut names = text.split('/').filter(|name| !matches!(*name, "" | "."));
        let Some(mut name) = names.next() else { return Ok(None) };
        let fault = |errno| on_path(errno, &shown(path));
        let mut dir = self
            .root
            .try_clone()
            .map_err(|_| fail(AgentErrorCode::NoResources, "no descriptor left in the sandbox"))?;
        for (depth, next) in names.enumerate() {
            if depth >= DEPTH {
                return Err(bad_request("a path leads through too many directories"));
            }
            refuse_up(name, path)?;
            match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(errno)),
            }
            dir = open_dir(&dir, name).map_err(fault)?;
            name = next;
        }
        refuse_up(name, path)?;
        Ok(Some(Place { dir, parent: String::new(), name: name.to_owned() }))
    }
}

fn refuse_up(name: &str, path: &[u8]) -> Outcome<()> {
    if name == ".." {
        return Err(bad_request(format!("{}: leads out of the directory", shown(path))));
    }
    Ok(())
}

/// A directory itself: a link to one is none.
fn open_dir(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::LOOP) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// Removes what a link is to take the place of, if that is no directory.
fn make_room(place: &Place) -> Result<(), Errno> {
    match unlinkat(&place.dir, place.name.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn symlink(place: &Place, entry: &TreeEntry) -> Result<(), Errno> {
    let name = place.name.as_str();
    symlinkat(entry.link.as_slice(), &place.dir, name)?;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    // Owners that this user namespace does not know are not kept.
    let _ = chownat(&place.dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    let _ = utimensat(&place.dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW);
    statat(&place.dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|_| ())
}

fn adorn(dir: &OwnedFd, entry: &TreeEntry) -> Result<(), Errno> {
    let _ = fchown(dir, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    fchmod(dir, Mode::from_raw_mode(entry.mode & PERMISSIONS))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
