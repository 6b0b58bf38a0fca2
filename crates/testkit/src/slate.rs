//! What an installation has on the host: processes, mounts, loop devices, control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything on this host that belongs to the installation in `data_dir`, in words.
///
/// Files inside `data_dir` are not looked at: what may stay there depends on the test.
pub fn leftovers(data_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(mounts(data_dir));
    found.extend(loops(data_dir));
    found.extend(processes(data_dir));
    found.extend(cgroups(data_dir));
    found
}

fn mounts(data_dir: &Path) -> Vec<String> {
    let needle = data_dir.to_string_lossy();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|l| l.contains(&*needle)).map(|l| format!("mount: {l}")).collect()
}

fn loops(data_dir: &Path) -> Vec<String> {
    let devices = entries(Path::new("/sys/block"));
    let backing = devices.iter().filter_map(|d| {
        let file = fs::read_to_string(d.join("loop/backing_file")).ok()?;
        file.starts_with(&*data_dir.to_string_lossy())
            .then(|| format!("loop device: {} on {}", d.display(), file.trim()))
    });
    backing.collect()
}

/// Processes that have something of the folder open, mapped, as a socket, or in their words.
fn processes(data_dir: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let all = entries(Path::new("/proc"));
    let pids = all.iter().filter(|p| {
        p.file_name().is_some_and(|n| {
            let n = n.to_string_lossy();
            n.bytes().all(|b| b.is_ascii_digit()) && *n != *own
        })
    });
    pids.filter(|p| touches(p, data_dir)).map(|p| describe(p)).collect()
}

fn touches(process: &Path, data_dir: &Path) -> bool {
    let needle = data_dir.to_string_lossy().into_owned();
    let says = |file: &str| {
        fs::read(process.join(file))
            .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&needle))
    };
    let links = ["cwd", "root", "exe"].map(|l| process.join(l));
    let fds = entries(&process.join("fd"));
    let targets: Vec<PathBuf> =
        links.iter().chain(&fds).filter_map(|l| fs::read_link(l).ok()).collect();
    says("cmdline")
        || targets.iter().any(|t| t.starts_with(data_dir))
        || sockets(process, &needle).iter().any(|inode| {
            let name = PathBuf::from(format!("socket:[{inode}]"));
            targets.contains(&name)
        })
}

/// Inodes of the unix sockets bound below the folder, as the process's network namespace has them.
fn sockets(process: &Path, needle: &str) -> BTreeSet<String> {
    let table = fs::read_to_string(process.join("net/unix")).unwrap_or_default();
    let bound = table.lines().filter(|l| l.contains(needle));
    bound.filter_map(|l| l.split_whitespace().nth(6).map(str::to_owned)).collect()
}

fn describe(process: &Path) -> String {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    format!("process: {} {}", process.display(), words.trim())
}

/// Control groups whose name carries the installation's id, which the marker file holds.
fn cgroups(data_dir: &Path) -> Vec<String> {
    let marker = fs::read_to_string(data_dir.join("stacyvm-data")).unwrap_or_default();
    let long_enough = |word: &&str| word.len() >= 8;
    let ids: Vec<&str> = marker
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(long_enough)
        .filter(|w| w.bytes().any(|b| b.is_ascii_digit()))
        .collect();
    let mut found = Vec::new();
    let mut stack = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = stack.pop() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ids.iter().any(|id| name.contains(id)) {
            found.push(format!("control group: {}", dir.display()));
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
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_holds_something_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(leftovers(dir.path()), Vec::<String>::new());
        let mut sleeper = Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        let seen = leftovers(dir.path());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].contains("sleep 60"), "{seen:?}");
    }

    #[test]
    fn a_bound_socket_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let own = PathBuf::from("/proc/self");
        assert!(touches(&own, dir.path()));
    }
}
