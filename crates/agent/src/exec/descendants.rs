//! Finding and killing all descendants of a process by the parents that /proc names.

use std::collections::BTreeMap;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys;

/// Walks in one go. A program that forks while it is killed needs several; what is still left then
/// gets another go a little later.
const WALKS: u32 = 20;

/// PF_FORKNOEXEC in the flags of /proc/PID/stat.
const FORKED_NO_EXEC: u32 = 0x40;

/// A living process and its parent.
struct Process {
    parent: i32,
    zombie: bool,
    /// Forked, and no execve since.
    fresh: bool,
}

/// Kills what descends from `roots`, not the roots themselves. `true` when nothing living was left.
pub(crate) fn kill_below(roots: &[i32]) -> bool {
    for _ in 0..WALKS {
        let all = processes();
        let below: Vec<i32> = all
            .iter()
            .filter(|(pid, p)| !p.zombie && !roots.contains(pid) && descends(&all, **pid, roots))
            .map(|(pid, _)| *pid)
            .collect();
        if below.is_empty() {
            return true;
        }
        for pid in below {
            kill_checked(pid, all.get(&pid).map_or(0, |p| p.parent));
        }
    }
    false
}

/// Whose child a process is, dead ones that nobody has reaped included.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    stat(pid).map(|p| p.parent)
}

/// Whether a process has become the program that it was started for.
pub(super) fn has_executed(pid: i32) -> bool {
    stat(pid).is_some_and(|p| !p.fresh)
}

fn descends(all: &BTreeMap<i32, Process>, pid: i32, roots: &[i32]) -> bool {
    let mut at = pid;
    // Bounded: parents read at different times could form a ring.
    for _ in 0..all.len() {
        match all.get(&at) {
            Some(p) if roots.contains(&p.parent) => return true,
            Some(p) if p.parent > 0 => at = p.parent,
            Some(_) | None => return false,
        }
    }
    false
}

/// Kills `pid` if it is still the same process: its number may have been given to another since.
fn kill_checked(pid: i32, parent: i32) {
    let Some(number) = Pid::from_raw(pid) else { return };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => {
            // The parent may have died meanwhile; then the next walk finds the child again.
            if stat(pid).is_some_and(|p| p.parent == parent) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
        Err(_) => {}
    }
}

fn processes() -> BTreeMap<i32, Process> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    dir.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).map(|process| (pid, process)))
        .collect()
}

/// Reads state, parent and flags. The name before them is the program's own choice, up to the last `)`.
fn stat(pid: i32) -> Option<Process> {
    let path = format!("/proc/{pid}/stat");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = [0; 512];
    let n = rustix::io::read(file, &mut bytes).ok()?;
    let text = &bytes[..n];
    let end = text.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // Group, session, terminal and its group stand between.
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    Some(Process { parent, zombie, fresh: flags & FORKED_NO_EXEC != 0 })
}
