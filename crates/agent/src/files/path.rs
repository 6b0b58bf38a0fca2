//! Paths: every one is resolved by the kernel beneath the sandbox's root, never joined to a host
//! path.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat2, readlinkat,
};
use rustix::io::Errno;

use crate::error::{Outcome, bad_request, on_path};

/// A `..` that races with a rename makes openat2 give up with EAGAIN, for us to try again.
const TRIES: usize = 64;
/// Links followed by hand when a file is replaced; the kernel's own bound is the same.
const LINKS: usize = 40;
const PATH_MAX: usize = 4096;
/// Where files go that nobody has another place for; always there.
const WORKSPACE: &str = "/workspace";

/// The tree of files that a sandbox sees.
pub(crate) struct Tree {
    root: OwnedFd,
    workdir: String,
    /// Whose new files are; root's without.
    owner: Option<(u32, u32)>,
}

/// A directory and a name in it.
pub(crate) struct Place {
    pub dir: OwnedFd,
    /// The path of the directory, as asked for.
    pub parent: String,
    /// One component: no slash, not `.` or `..`.
    pub name: String,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, workdir: &str) -> Self {
        let workdir =
            if workdir.starts_with('/') { workdir.to_owned() } else { format!("/{workdir}") };
        Self { root, workdir, owner: None }
    }

    /// From now on new files are this user's, and so is the usual place for them.
    pub(crate) fn belongs_to(&mut self, uid: u32, gid: u32) {
        self.owner = Some((uid, gid));
        if let Ok(dir) = self.make_dirs(WORKSPACE)
            && fstat(&dir).is_ok_and(|s| s.st_uid == 0)
        {
            self.own(&dir, "");
        }
    }

    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Gives something new its owner. Refused where this user namespace does not know the number:
    /// then it stays ours.
    fn own(&self, dir: &OwnedFd, name: &str) {
        if let Some((uid, gid)) = self.owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let _ = chownat(dir, name, Some(uid), Some(gid), flags);
        }
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(crate) fn workdir(&self) -> &str {
        &self.workdir
    }

    /// The path a client means, from the root. Nothing is resolved yet.
    pub(crate) fn absolute(&self, path: &str) -> Outcome<String> {
        if path.trim().is_empty() {
            return Err(bad_request("the path is empty"));
        }
        if path.contains('\0') {
            return Err(bad_request("the path holds a zero byte"));
        }
        let absolute = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.workdir)
        };
        if absolute.len() >= PATH_MAX {
            return Err(on_path(Errno::NAMETOOLONG, path));
        }
        Ok(absolute)
    }

    /// Opens a path inside, following links inside.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut last = Errno::AGAIN;
        for _ in 0..TRIES {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(errno @ (Errno::AGAIN | Errno::INTR)) => last = errno,
                other => return other,
            }
        }
        Err(last)
    }

    pub(crate) fn open_dir(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// The directory that holds what `path` names. The last component is not followed.
    pub(crate) fn place(&self, path: &str) -> Outcome<Place> {
        let (parent, name) = split(path)?;
        let dir = self.open_dir(&parent).map_err(|e| on_path(e, path))?;
        Ok(Place { dir, parent, name })
    }

    /// As [`Tree::place`], with the directories on the way made.
    pub(crate) fn place_made(&self, path: &str) -> Outcome<Place> {
        let (parent, name) = split(path)?;
        let dir = self.make_dirs(&parent).map_err(|e| on_path(e, path))?;
        Ok(Place { dir, parent, name })
    }

    /// Where the file is that a write to `path` replaces: links at the end are followed, a dangling
    /// one too, whose target is then made.
    pub(crate) fn place_followed(&self, path: &str) -> Outcome<Place> {
        let mut at = path.to_owned();
        for _ in 0..LINKS {
            if at.len() >= PATH_MAX {
                return Err(on_path(Errno::NAMETOOLONG, path));
            }
            if at.ends_with('/') || split(&at).is_err() {
                return Err(on_path(Errno::ISDIR, path));
            }
            let place = self.place_made(&at)?;
            match readlinkat(&place.dir, place.name.as_str(), Vec::new()) {
                Err(Errno::INVAL | Errno::NOENT) => return Ok(place),
                Err(errno) => return Err(on_path(errno, path)),
                // The text of procfs's own links is the host's view, not a way inside.
                Ok(_) if self.open(&at, OFlags::PATH).err() == Some(Errno::LOOP) => {
                    return Err(on_path(Errno::LOOP, path));
                }
                Ok(target) => {
                    let target = target.into_string().map_err(|_| on_path(Errno::INVAL, path))?;
                    at = if target.starts_with('/') {
                        target
                    } else {
                        format!("{}/{target}", place.parent)
                    };
                }
            }
        }
        Err(on_path(Errno::LOOP, path))
    }

    /// Opens a directory, made with its parents where missing.
    pub(crate) fn make_dirs(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.open_dir(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut dir = self.open_dir("/")?;
        let mut sofar = String::new();
        for name in path.split('/').filter(|c| !c.is_empty() && *c != ".") {
            sofar.push('/');
            sofar.push_str(name);
            dir = match self.open_dir(&sofar) {
                Err(Errno::NOENT) => {
                    match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) => self.own(&dir, name),
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    self.open_dir(&sofar)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// Whether there is anything under that path, a dangling link included.
    pub(crate) fn lexists(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW).is_ok()
    }
}

impl Place {
    /// The thing itself, not what it links to.
    pub(crate) fn stat(&self) -> Result<rustix::fs::Stat, Errno> {
        rustix::fs::statat(&self.dir, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Cuts off the last component.
fn split(path: &str) -> Outcome<(String, String)> {
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if matches!(name, "" | "." | "..") {
        return Err(bad_request("the path names no file or directory that this can be done to"));
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((parent.to_owned(), name.to_owned()))
}

/// A path as answers show it: absolute, without empty, `.` and `..` components.
pub(crate) fn display(absolute: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in absolute.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_show_plainly() {
        for (from, to) in
            [("/", "/"), ("//a//b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/../..", "/")]
        {
            assert_eq!(display(from), to);
        }
    }

    #[test]
    fn the_root_has_no_name() {
        for path in ["/", "//", "/.", "/a/..", "/a/.", ""] {
            assert!(split(path).is_err(), "{path}");
        }
        assert_eq!(split("/a/").unwrap(), ("/".into(), "a".into()));
        assert_eq!(split("/a//b").unwrap(), ("/a/".into(), "b".into()));
    }
}
