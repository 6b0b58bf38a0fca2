//! What an installation has on the host: processes, mounts, loop devices, control groups, claims of
//! user ids.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Process;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// Something on this host that belongs to an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    Process {
        pid: i32,
        words: String,
    },
    Mount(PathBuf),
    Loop {
        device: PathBuf,
        file: String,
    },
    ControlGroup(PathBuf),
    /// A block of user ids that nobody else can take.
    UserIds(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, words } => write!(f, "process {pid}: {words}"),
            Self::Mount(at) => write!(f, "mount: {}", at.display()),
            Self::Loop { device, file } => write!(f, "loop: {} on {file}", device.display()),
            Self::ControlGroup(dir) => write!(f, "control group: {}", dir.display()),
            Self::UserIds(file) => write!(f, "claimed user ids: {}", file.display()),
        }
    }
}

/// Everything on this host that belongs to the installation in `data_dir`.
///
/// Files inside `data_dir` are not looked at: what may stay there depends on the test.
pub fn leftovers(data_dir: &Path) -> Vec<Leftover> {
    let mut found = processes(data_dir);
    found.extend(mounts(data_dir));
    found.extend(loops(data_dir));
    let ids = installations(data_dir);
    found.extend(cgroups(&ids));
    found.extend(claims(&ids));
    found
}

/// Removes what is left over, as far as it can: the end of a test that did not end well.
pub(crate) fn sweep(data_dir: &Path) {
    for left in leftovers(data_dir) {
        // One that is gone already is what we want.
        let _ = match left {
            Leftover::Process { pid, .. } => {
                Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL).is_ok())
            }
            Leftover::Mount(at) => Some(unmount(at, UnmountFlags::DETACH).is_ok()),
            Leftover::Loop { device, .. } => {
                // Gone by itself with its mount, most of the time: then it has nothing to say.
                Some(Command::new("losetup").arg("-d").arg(device).output().is_ok())
            }
            Leftover::ControlGroup(dir) => Some(remove_group(&dir)),
            Leftover::UserIds(file) => Some(fs::remove_file(file).is_ok()),
        };
    }
}

fn remove_group(dir: &Path) -> bool {
    for child in entries(dir).into_iter().filter(|d| d.is_dir()) {
        remove_group(&child);
    }
    fs::remove_dir(dir).is_ok()
}

/// Deepest first.
fn mounts(data_dir: &Path) -> Vec<Leftover> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|p| p.starts_with(data_dir)).collect();
    below.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    below.into_iter().map(Leftover::Mount).collect()
}

fn loops(data_dir: &Path) -> Vec<Leftover> {
    let devices = entries(Path::new("/sys/block")).into_iter().filter_map(|d| {
        let file = fs::read_to_string(d.join("loop/backing_file")).ok()?.trim().to_owned();
        let device = Path::new("/dev").join(d.file_name()?);
        Path::new(&file).starts_with(data_dir).then_some(Leftover::Loop { device, file })
    });
    devices.collect()
}

/// Processes that have something of the folder open, as a socket, or in their words, and those in
/// the installation's control groups.
fn processes(data_dir: &Path) -> Vec<Leftover> {
    let ids = installations(data_dir);
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let all = entries(Path::new("/proc"));
    let pids = all.into_iter().filter_map(|p| {
        let pid: i32 = p.file_name()?.to_str()?.parse().ok()?;
        Some((pid, p))
    });
    // One that has ended and waits for its parent, or for the host's init, holds nothing.
    let lives =
        |pid: i32| u32::try_from(pid).ok().and_then(Process::of).is_some_and(|p| p.is_alive());
    pids.filter(|(pid, p)| *pid != own && (grouped(p, &ids) || touches(p, data_dir)))
        .filter(|(pid, _)| lives(*pid))
        .map(|(pid, p)| Leftover::Process { pid, words: words(&p) })
        .collect()
}

fn grouped(process: &Path, ids: &[String]) -> bool {
    let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    ids.iter().any(|id| groups.contains(id.as_str()))
}

fn touches(process: &Path, data_dir: &Path) -> bool {
    let needle = data_dir.to_string_lossy().into_owned();
    let links = ["cwd", "root", "exe"].map(|l| process.join(l));
    let fds = entries(&process.join("fd"));
    let targets: Vec<PathBuf> =
        links.iter().chain(&fds).filter_map(|l| fs::read_link(l).ok()).collect();
    words(process).contains(&needle)
        || targets.iter().any(|t| t.starts_with(data_dir))
        || sockets(process, &needle)
            .iter()
            .any(|inode| targets.contains(&PathBuf::from(format!("socket:[{inode}]"))))
}

/// Inodes of the unix sockets bound below the folder, as the process's network namespace has them.
fn sockets(process: &Path, needle: &str) -> BTreeSet<String> {
    let table = fs::read_to_string(process.join("net/unix")).unwrap_or_default();
    let bound = table.lines().filter(|l| l.contains(needle));
    bound.filter_map(|l| l.split_whitespace().nth(6).map(str::to_owned)).collect()
}

fn words(process: &Path) -> String {
    let bytes = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// What the installations of a data folder put into the names of what they make on the host.
fn installations(data_dir: &Path) -> Vec<String> {
    let marker = fs::read_to_string(data_dir.join("stacyvm-data")).unwrap_or_default();
    let ids = marker.lines().filter_map(|l| l.strip_prefix("installation "));
    ids.map(str::to_owned).collect()
}

/// Every control group of the folder's installations, in all hierarchies, with those below.
pub(crate) fn groups_below(data_dir: &Path) -> Vec<PathBuf> {
    let tops = cgroups(&installations(data_dir)).into_iter().filter_map(|left| match left {
        Leftover::ControlGroup(dir) => Some(dir),
        _ => None,
    });
    let (mut found, mut stack) = (Vec::new(), tops.collect::<Vec<_>>());
    while let Some(dir) = stack.pop() {
        stack.extend(entries(&dir).into_iter().filter(|d| d.is_dir()));
        found.push(dir);
    }
    found
}

fn claims(ids: &[String]) -> Vec<Leftover> {
    let files = entries(Path::new("/run/stacyvm/uid-blocks")).into_iter().filter(|file| {
        let owner = fs::read_to_string(file).unwrap_or_default();
        ids.iter().any(|id| owner.contains(id))
    });
    files.map(Leftover::UserIds).collect()
}

fn cgroups(ids: &[String]) -> Vec<Leftover> {
    let mut found = Vec::new();
    let mut stack = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = stack.pop() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ids.iter().any(|id| name.contains(id)) {
            found.push(Leftover::ControlGroup(dir));
            continue;
        }
        stack.extend(entries(&dir).into_iter().filter(|d| d.is_dir() && !d.is_symlink()));
    }
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(dir) else { return Vec::new() };
    read.filter_map(|e| e.ok().map(|e| e.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_process_that_holds_something_is_seen_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(leftovers(dir.path()), []);
        let mut sleeper = Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        let seen = leftovers(dir.path());
        sweep(dir.path());
        assert!(!sleeper.wait().unwrap().success());
        let [Leftover::Process { words, .. }] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(words, "sleep 60");
    }

    #[test]
    fn a_bound_socket_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!touches(Path::new("/proc/self"), dir.path()));
        let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(touches(Path::new("/proc/self"), dir.path()));
    }
}
