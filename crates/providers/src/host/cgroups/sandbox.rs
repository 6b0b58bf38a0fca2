//! The cgroups of one sandbox.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::spawner::Cgroups;

use crate::host::ProcessId;
use crate::host::process::{resident, stat};

/// The leaf that the agent sits in, where the spawner made one below the sandbox's own.
const AGENT_LEAF: &str = "agent";

/// Its directory in each hierarchy; they need not exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct SandboxCgroups {
    v2: Option<PathBuf>,
    v2_limits: bool,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// What it uses; `None` where nothing tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub cpu: Option<Duration>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
}

impl SandboxCgroups {
    pub(super) fn new(parents: &Cgroups, id: &str) -> Self {
        let under = |parent: &Option<String>| parent.as_ref().map(|p| Path::new(p).join(id));
        Self {
            v2: under(&parents.v2),
            v2_limits: parents.v2_limits,
            memory: under(&parents.v1_memory),
            cpu: under(&parents.v1_cpu),
            pids: under(&parents.v1_pids),
        }
    }

    fn each(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.v2, &self.memory, &self.cpu, &self.pids].into_iter().flatten()
    }

    pub fn exist(&self) -> bool {
        self.each().any(|dir| dir.exists())
    }

    /// Kills everything in it at once, where v2 can. A cgroup that is not there is not an error.
    pub fn kill(&self) {
        if let Some(dir) = &self.v2 {
            // Opened without O_CREAT: never makes a file where there is no such cgroup.
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
            if let Ok(mut file) = file {
                let _ = std::io::Write::write_all(&mut file, b"1");
            }
        }
    }

    /// Every living process in any of its cgroups, and in those below.
    pub fn processes(&self) -> Vec<ProcessId> {
        let mut pids = Vec::new();
        for dir in self.each() {
            collect_pids(dir, 0, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().filter_map(living).collect()
    }

    /// One of its processes: looks no further than the first hierarchy that has any.
    pub fn any_process(&self) -> Option<ProcessId> {
        self.each().find_map(|dir| {
            let mut pids = Vec::new();
            collect_pids(dir, 0, &mut pids);
            pids.into_iter().find_map(living)
        })
    }

    /// Removes what is left of it. Fails silently while a process is in it: `sweep` comes back.
    pub fn remove(&self) -> bool {
        self.each().filter(|dir| !remove_tree(dir, 0)).count() == 0
    }

    /// Where no controller counts, memory and processes are counted one by one.
    pub fn usage(&self) -> Usage {
        let memory = match (&self.memory, &self.v2) {
            (Some(dir), _) => number(&dir.join("memory.usage_in_bytes")),
            (None, Some(dir)) if self.v2_limits => number(&dir.join("memory.current")),
            _ => None,
        };
        let pids = match (&self.pids, &self.v2) {
            (Some(dir), _) => number(&dir.join("pids.current")),
            (None, Some(dir)) if self.v2_limits => number(&dir.join("pids.current")),
            _ => None,
        };
        let cpu = self.cpu_time();
        if memory.is_some() && pids.is_some() {
            return Usage { cpu, memory_bytes: memory, pids };
        }
        let sizes: Vec<u64> = self.processes().iter().filter_map(|p| resident(p.pid)).collect();
        let counted = |number: u64| (!sizes.is_empty()).then_some(number);
        Usage {
            cpu,
            memory_bytes: memory.or_else(|| counted(sizes.iter().sum())),
            pids: pids.or_else(|| counted(sizes.len() as u64)),
        }
    }

    /// v2 counts CPU time in every cgroup, whichever hierarchy has the controller.
    fn cpu_time(&self) -> Option<Duration> {
        let v2 =
            || keyed(&self.v2.as_ref()?.join("cpu.stat"), "usage_usec").map(Duration::from_micros);
        let v1 = || number(&self.cpu.as_ref()?.join("cpuacct.usage")).map(Duration::from_nanos);
        v2().or_else(v1)
    }

    /// Whether the kernel killed for memory where the agent is: in its leaf, if it has one.
    pub fn agent_was_oom_killed(&self) -> bool {
        let count = |dir: &Path, file: &str| {
            let leaf = dir.join(AGENT_LEAF);
            let dir = if leaf.exists() { leaf.as_path() } else { dir };
            keyed(&dir.join(file), "oom_kill").unwrap_or(0) > 0
        };
        let v1 = self.memory.as_ref().is_some_and(|d| count(d, "memory.oom_control"));
        v1 || self.v2_limits && self.v2.as_ref().is_some_and(|d| count(d, "memory.events"))
    }
}

fn living(pid: i32) -> Option<ProcessId> {
    let s = stat(pid).filter(|s| !s.is_dead())?;
    Some(ProcessId { pid, start_time: s.start_time })
}

/// Deeper than the spawner and the agent nest; what is inside can't make cgroups.
const MAX_DEPTH: u32 = 4;

fn collect_pids(dir: &Path, depth: u32, into: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
        into.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 1));
    }
    if depth < MAX_DEPTH {
        for child in super::children(dir) {
            collect_pids(&dir.join(child), depth + 1, into);
        }
    }
}

fn remove_tree(dir: &Path, depth: u32) -> bool {
    if depth < MAX_DEPTH {
        for child in super::children(dir) {
            remove_tree(&dir.join(child), depth + 1);
        }
    }
    match std::fs::remove_dir(dir) {
        Ok(()) => true,
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_controller_counts_is_counted_by_process() {
        let dir = tempfile::tempdir().unwrap();
        let groups = SandboxCgroups { v2: Some(dir.path().to_owned()), ..Default::default() };
        assert_eq!(groups.usage(), Usage::default());
        let us = std::process::id().to_string();
        std::fs::write(dir.path().join("cgroup.procs"), us).unwrap();
        let usage = groups.usage();
        assert_eq!(usage.pids, Some(1));
        assert!(usage.memory_bytes.is_some_and(|bytes| bytes > 1 << 16), "{usage:?}");
    }
}
