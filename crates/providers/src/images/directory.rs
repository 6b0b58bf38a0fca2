//! A directory as the source of an image: read in one order, so that the same content has one id,
//! following no link and leaving no mount.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use types::Fault;

use super::fault::{errno, from_io, reading, shown};
use super::limits::Limits;
use super::unpack::{Meta, Tree, relative};

const BUFFER: usize = 128 << 10;
const READING: &str = "reading the directory failed";

/// Told of every so many bytes; may say stop.
pub(super) type Tick<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), Fault>;

/// Walks `root`, copying into `tree` if there is one, and gives the id of what was seen. The folder
/// `not_this` (the store itself) is passed over, wherever it is met.
pub(super) fn walk(
    root: &OwnedFd,
    not_this: (u64, u64),
    limits: &Limits,
    tree: Option<&mut Tree>,
    tick: Tick<'_>,
) -> Result<String, Fault> {
    let mut walk = Walk {
        root,
        not_this,
        limits,
        tree,
        tick,
        hash: Sha256::new(),
        links: HashMap::new(),
        bytes: 0,
        entries: 0,
        buffer: vec![0; BUFFER],
    };
    walk.hash.update(b"stacyvm directory 1\n");
    // A stack of paths, not of descriptors: depth costs no descriptor.
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        walk.directory(&path, &mut open)?;
    }
    Ok(data_encoding::HEXLOWER.encode(&walk.hash.finalize()))
}

struct Walk<'a> {
    root: &'a OwnedFd,
    not_this: (u64, u64),
    limits: &'a Limits,
    tree: Option<&'a mut Tree>,
    tick: Tick<'a>,
    hash: Sha256,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8], open: &mut Vec<Vec<u8>>) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match self.open(path, flags) {
            Ok(dir) => dir,
            Err(Errno::XDEV) => return self.left_out("mounted file system left empty"),
            Err(Errno::ACCESS) => return self.left_out("unreadable directory left empty"),
            // Went, or became something else, since its parent was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => return Ok(()),
            Err(e) => return Err(errno(READING)(e)),
        };
        let mut below = Vec::new();
        for name in self.names(&dir)? {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            let child = relative(&child, self.limits)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Fault::bad_request("the directory holds more files than an image may"));
            }
            (self.tick)(self.bytes, self.entries)?;
            let stat = match statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(errno(READING)(e)),
            };
            if self.child(&dir, &name, &child, &stat)? {
                below.push(child);
            }
        }
        open.extend(below.into_iter().rev());
        Ok(())
    }

    fn names(&self, dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Fault> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(errno(READING))? {
            let entry = entry.map_err(errno(READING))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            // A directory that is filled while it is read must not be read for ever.
            if names.len() as u64 > self.limits.entries {
                return Err(Fault::bad_request("the directory holds more files than an image may"));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Takes one thing in; whether it is a directory to go into.
    fn child(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<bool, Fault> {
        let meta = meta(stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if (stat.st_dev, stat.st_ino) == self.not_this {
                    self.left_out("image store left out")?;
                    return Ok(false);
                }
                self.record(b'd', path, Some(meta), b"");
                if let Some(tree) = &mut self.tree {
                    tree.dir(path, meta)?;
                }
                return Ok(true);
            }
            FileType::Symlink => {
                let target = match readlinkat(dir, name, Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(false),
                    Err(e) => return Err(errno(READING)(e)),
                };
                self.record(b'l', path, Some(meta), &target);
                if let Some(tree) = &mut self.tree {
                    tree.symlink(path, &target, meta)?;
                }
            }
            FileType::RegularFile => self.file(path)?,
            FileType::Socket => self.left_out("socket left out")?,
            FileType::Fifo => self.left_out("FIFO left out")?,
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.left_out("device left out")?;
            }
            FileType::Unknown => self.left_out("entry of an unknown kind left out")?,
        }
        Ok(false)
    }

    fn file(&mut self, path: &[u8]) -> Result<(), Fault> {
        // O_NONBLOCK: it may have become a FIFO since.
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::ACCESS | Errno::PERM) => return self.left_out("unreadable file left out"),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(Errno::XDEV) => return self.left_out("mounted file left out"),
            Err(e) => return Err(errno(READING)(e)),
        };
        let stat = fstat(&file).map_err(errno(READING))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let meta = meta(&stat);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                self.record(b'h', path, None, &first);
                return self.tree.as_mut().map_or(Ok(()), |tree| tree.hard_link(path, &first));
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let content = self.copy(file, path, meta, u64::try_from(stat.st_size).unwrap_or(0))?;
        self.record(b'f', path, Some(meta), &content);
        Ok(())
    }

    /// Copies at most the size the file had when it was opened: it may be growing.
    fn copy(&mut self, file: File, path: &[u8], meta: Meta, size: u64) -> Result<Vec<u8>, Fault> {
        let mut source = file.take(size);
        let mut hash = Sha256::new();
        let Self { tree, tick, buffer, bytes, entries, .. } = self;
        let mut pump = |mut to: Option<&mut File>| -> Result<(), Fault> {
            loop {
                let n = match source.read(buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(reading(e)),
                };
                hash.update(&buffer[..n]);
                if let Some(to) = &mut to {
                    to.write_all(&buffer[..n])
                        .map_err(|e| from_io("writing the image failed", e))?;
                }
                *bytes += n as u64;
                tick(*bytes, *entries)?;
            }
        };
        match tree {
            Some(tree) => tree.file(path, meta, |tree, to| {
                tree.grow(size)?;
                pump(Some(to))
            })?,
            None => pump(None)?,
        }
        Ok(hash.finalize().to_vec())
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(
            self.root,
            path,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
    }

    fn left_out(&mut self, why: &'static str) -> Result<(), Fault> {
        if let Some(tree) = &mut self.tree {
            tree.note(why);
        }
        Ok(())
    }

    /// One line of what the id is taken over. Lengths come first, so that no two lists look alike.
    fn record(&mut self, kind: u8, path: &[u8], meta: Option<Meta>, rest: &[u8]) {
        let head = match meta {
            Some(m) => format!(
                "{} {} {:o} {} {} {}.{:09}\n",
                path.len(),
                rest.len(),
                m.mode,
                m.uid,
                m.gid,
                m.mtime.0,
                m.mtime.1
            ),
            None => format!("{} {}\n", path.len(), rest.len()),
        };
        self.hash.update([kind]);
        self.hash.update(head);
        self.hash.update(path);
        self.hash.update(rest);
    }
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: u64::from(stat.st_uid),
        gid: u64::from(stat.st_gid),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

/// What kind of thing a path is, for people who gave a wrong one.
pub(super) fn neither(path: &std::path::Path) -> Fault {
    Fault::bad_request(format!(
        "'{}' is neither a directory nor a file",
        shown(path.file_name().unwrap_or_default().as_encoded_bytes())
    ))
}
