//! Processes on this host, each named so that a reused pid is never mistaken for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// A process that was there when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    started: String,
}

impl Process {
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|s| Self { pid, started: s.started })
    }

    /// Those whose parent it is.
    pub fn children_of(pid: u32) -> Vec<Self> {
        let all = pids().into_iter().filter_map(|pid| Some((pid, stat(pid)?)));
        let children = all.filter(|(_, s)| s.parent == pid && !s.dead);
        children.map(|(pid, s)| Self { pid, started: s.started }).collect()
    }

    /// The first one whose command line is exactly this.
    pub fn running(words: &[&str]) -> Option<Self> {
        let wanted: String = words.iter().map(|w| format!("{w}\0")).collect();
        pids().into_iter().find(|pid| cmdline(*pid) == wanted.as_bytes()).and_then(Self::of)
    }

    /// A zombie is dead: its parent may be slow to reap.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.started == self.started && !s.dead)
    }

    /// Ends it as a crash would, and no other.
    pub fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|p| p.as_raw_pid() > 1)
            && self.is_alive()
        {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// How many open descriptors there are of each kind.
    pub fn descriptors(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for fd in fs::read_dir(self.dir().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            // `socket:[123]`: the number is of no interest.
            let kind = match target.split_once(":[") {
                Some((kind, _)) if !target.starts_with('/') => kind.to_owned(),
                _ => target,
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// Where it sees something mounted.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(self.dir().join("mountinfo")).unwrap_or_default();
        table.lines().filter_map(|l| l.split(' ').nth(4)).map(str::to_owned).collect()
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }
}

struct Stat {
    parent: u32,
    started: String,
    dead: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything, brackets too.
    let mut rest = text.get(text.rfind(')')? + 2..)?.split(' ');
    let dead = matches!(rest.next()?, "Z" | "X" | "x");
    let parent = rest.next()?.parse().ok()?;
    Some(Stat { parent, started: rest.nth(17)?.to_owned(), dead })
}

fn cmdline(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_found_and_ended() {
        let mut child = Command::new("sleep").arg("613.5").spawn().unwrap();
        let seen = Process::of(child.id()).unwrap();
        assert!(Process::children_of(std::process::id()).contains(&seen));
        assert!(seen.is_alive() && !seen.descriptors().is_empty());
        let other = Process { started: "1".to_owned(), ..seen.clone() };
        other.kill();
        assert!(seen.is_alive() && !other.is_alive());
        seen.kill();
        assert!(!child.wait().unwrap().success());
        assert!(!seen.is_alive() && Process::running(&["sleep", "613.5"]).is_none());
    }
}
