//! The curated `/etc` of the image `host`: an allow-list, and nothing private even if the list or a
//! link leads there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use types::Fault;

use super::files::Files;
use crate::images::fault::errno;

/// What programs need of `/etc`, with all beneath. A star ends a name. What is not named here is
/// not shown.
const SHOWN: [&str; 29] = [
    "nsswitch.conf",
    "localtime",
    "mime.types",
    "magic",
    "terminfo",
    "protocols",
    "services",
    "login.defs",
    "pam.d",
    "shells",
    "profile",
    "bash.bashrc",
    "fonts",
    "python3*",
    "perl",
    "java-*",
    "ssl/certs",
    "ssl/openssl.cnf",
    // Where Fedora and its kin keep what `ssl` links to.
    "pki/tls/certs",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "crypto-policies/back-ends",
    "ca-certificates",
    "ca-certificates.conf",
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
];

/// Links may point here: it is shown, or is part of what is shown.
const PROGRAMS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Never copied from, wherever a link came from.
const PRIVATE: [&str; 14] = [
    "root",
    "home",
    "var",
    "run",
    "proc",
    "sys",
    "dev",
    "tmp",
    "etc/ssl/private",
    "etc/pki/tls/private",
    "etc/shadow",
    "etc/gshadow",
    "etc/ssh",
    "etc/sudoers",
];

const MOST_FILES: usize = 50_000;
const MOST_BYTES: u64 = 64 << 20;
/// A bundle of certificates has half a MiB.
const MOST_FILE_BYTES: u64 = 4 << 20;

/// What of `/etc` is shown, found without reading it.
pub(super) struct Etc {
    root: OwnedFd,
    found: Vec<Found>,
}

struct Found {
    /// Beneath `/etc`.
    path: String,
    kind: Kind,
    stat: Stat,
}

enum Kind {
    Directory,
    /// To copy, through a link if it is one.
    File,
    /// To show as it is.
    Symlink(Vec<u8>),
}

/// Looks at `etc` beneath `root`.
pub(super) fn look(root: &Path) -> Result<Etc, Fault> {
    let failed = errno("looking at this machine's settings failed");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(rustix::fs::CWD, root, flags, Mode::empty()).map_err(&failed)?;
    let mut etc = Etc { root, found: Vec::new() };
    let mut open = VecDeque::from([String::new()]);
    while let Some(dir) = open.pop_front() {
        etc.directory(&dir, &mut open)?;
    }
    etc.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(etc)
}

impl Etc {
    /// Unreadable and vanished things are passed over: as an ordinary user some are.
    fn directory(&mut self, path: &str, open: &mut VecDeque<String>) -> Result<(), Fault> {
        let Ok(dir) = self.open(&format!("etc/{path}"), OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Ok(());
        };
        let Ok(entries) = Dir::read_from(&dir) else { return Ok(()) };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let child = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let shown = is_shown(&child);
            if !shown && !leads_to_shown(&child) {
                continue;
            }
            if self.found.len() >= MOST_FILES {
                return Err(Fault::unavailable("this machine's /etc is too large to be shown"));
            }
            let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.entry(&dir, name, child, shown, stat, open);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        path: String,
        shown: bool,
        stat: Stat,
        open: &mut VecDeque<String>,
    ) {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                open.push_back(path.clone());
                self.found.push(Found { path, kind: Kind::Directory, stat });
            }
            FileType::RegularFile if shown && may_copy(&stat) => {
                self.found.push(Found { path, kind: Kind::File, stat });
            }
            FileType::Symlink if shown => {
                let Ok(target) = readlinkat(dir, name, Vec::new()) else { return };
                let target = target.into_bytes();
                if stays_shown(&path, &target) {
                    self.found.push(Found { path, kind: Kind::Symlink(target), stat });
                } else if let Ok((_, stat)) = self.open_copied(&path) {
                    self.found.push(Found { path, kind: Kind::File, stat });
                }
            }
            _ => {}
        }
    }

    /// Hashes what would show a change of any file: its inode, size and times.
    pub(super) fn fingerprint(&self, hash: &mut Sha256) {
        for f in &self.found {
            let s = &f.stat;
            hash.update(format!(
                "{} {} {} {:o} {} {} {} {} {}\n",
                f.path,
                s.st_dev,
                s.st_ino,
                s.st_mode,
                s.st_size,
                s.st_mtime,
                s.st_mtime_nsec,
                s.st_ctime,
                s.st_ctime_nsec
            ));
        }
    }

    /// Copies it.
    pub(super) fn copy(&self, files: &mut Files) -> Result<(), Fault> {
        let mut left = MOST_BYTES;
        for found in &self.found {
            let path = format!("etc/{}", found.path);
            match &found.kind {
                Kind::Directory => drop(files.dir(path, 0o755)),
                Kind::Symlink(target) => drop(files.symlink(path, target.clone())),
                Kind::File => {
                    let Some(content) = self.content(&found.path) else { continue };
                    left = left.checked_sub(content.len() as u64).ok_or_else(|| {
                        Fault::unavailable("this machine's /etc is too large to be shown")
                    })?;
                    files.file(path, found.stat.st_mode & 0o755, content);
                }
            }
        }
        Ok(())
    }

    /// A file's content, unless it went, grew, or turns out to be private.
    fn content(&self, path: &str) -> Option<Vec<u8>> {
        let (file, stat) = self.open_copied(path).ok()?;
        let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0));
        file.take(MOST_FILE_BYTES + 1).read_to_end(&mut content).ok()?;
        let private = content.windows(KEY.len()).any(|w| w == KEY);
        (content.len() as u64 <= MOST_FILE_BYTES && !private).then_some(content)
    }

    /// Opens something to copy: the file itself or where its link leads, if that is fit to show.
    fn open_copied(&self, path: &str) -> Result<(File, Stat), Errno> {
        let file = self.open(&format!("etc/{path}"), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = fstat(&file)?;
        if !may_copy(&stat) || !self.is_public(&file)? {
            return Err(Errno::ACCESS);
        }
        Ok((File::from(file), stat))
    }

    /// Whether the place a file was really found in is one that everybody may go to.
    fn is_public(&self, file: &OwnedFd) -> Result<bool, Errno> {
        let place = self.place(file)?;
        let Some(place) = place.strip_prefix(self.place(&self.root)?.as_str()) else {
            return Ok(false);
        };
        let place = place.trim_start_matches('/');
        if PRIVATE.iter().any(|p| is_beneath(place, p) || backup_of(place, p)) {
            return Ok(false);
        }
        // A file that all may read, in a directory that only some may enter, is not public.
        for (at, _) in place.match_indices('/') {
            let stat = statat(&self.root, &place[..at], AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_mode & 0o001 == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn place(&self, fd: &impl AsFd) -> Result<String, Errno> {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let place = rustix::fs::readlink(link, Vec::new())?;
        let text = place.into_string().map_err(|_| Errno::ILSEQ)?;
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

/// What a private key's text holds, whatever its kind.
const KEY: &[u8] = b"PRIVATE KEY-----";

/// Readable by everybody, of a sane size.
fn may_copy(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_mode & 0o004 != 0
        && u64::try_from(stat.st_size).is_ok_and(|size| size <= MOST_FILE_BYTES)
}

fn matches(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Whether a path beneath `/etc` is on the list, or beneath something that is.
fn is_shown(path: &str) -> bool {
    SHOWN.iter().any(|pattern| {
        let mut parts = path.split('/');
        pattern.split('/').all(|p| parts.next().is_some_and(|name| matches(name, p)))
    })
}

/// Whether something on the list lies beneath it.
fn leads_to_shown(path: &str) -> bool {
    SHOWN.iter().any(|pattern| pattern.strip_prefix(path).is_some_and(|r| r.starts_with('/')))
}

fn is_beneath(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `shadow-`, `shadow.bak`: copies that tools leave.
fn backup_of(path: &str, private: &str) -> bool {
    private.starts_with("etc/")
        && path.strip_prefix(private).is_some_and(|rest| rest.starts_with(['-', '.', '~']))
}

/// Whether a link's target, by its text, is shown in the sandbox too.
fn stays_shown(path: &str, target: &[u8]) -> bool {
    let Ok(target) = std::str::from_utf8(target) else { return false };
    let mut place: Vec<&str> = Vec::new();
    if !target.starts_with('/') {
        place.push("etc");
        place.extend(path.split('/'));
        place.pop();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(place.pop()),
            name => place.push(name),
        }
    }
    match place.split_first() {
        Some((&"etc", rest)) => is_shown(&rest.join("/")),
        Some((first, _)) => PROGRAMS.contains(first),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_is_shown() {
        for yes in ["localtime", "ssl/certs/a.pem", "python3.11/x", "java-17-openjdk/security/y"] {
            assert!(is_shown(yes), "{yes}");
        }
        for no in ["shadow", "ssl", "ssl/private/k", "ssl/private", "ssh/key", "python2", "pki"] {
            assert!(!is_shown(no), "{no}");
        }
        assert!(leads_to_shown("ssl") && leads_to_shown("pki/tls") && !leads_to_shown("ssh"));
    }

    #[test]
    fn links_stay_only_where_their_target_is_shown() {
        assert!(stays_shown("alternatives/vi", b"/usr/bin/vim"));
        assert!(stays_shown("ssl/certs/a.0", b"a.pem"));
        assert!(stays_shown("localtime", b"../usr/share/zoneinfo/UTC"));
        assert!(!stays_shown("ssl/certs/k", b"../private/k"));
        assert!(!stays_shown("magic", b"/var/lib/magic"));
        assert!(!stays_shown("magic", b"/usr/../root/x"));
        assert!(!stays_shown("magic", b"/etc/shadow"));
    }
}
