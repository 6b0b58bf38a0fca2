//! The cgroups of sandboxes: one of the sandbox's id in every hierarchy, under our parents.
//!
//! Limits are set where the controllers are. On v2 the agent sits in a leaf `agent` and makes
//! leaves for its commands beside it; a kill or a freeze of a command does not reach the agent.

use std::os::fd::OwnedFd;

use protocol::spawner::{Cgroups as Parents, SpawnSpec};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chownat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::step::{Outcome, Step};
use crate::sys::{self, Sys};

/// The agent's own leaf on v2.
pub(crate) const AGENT: &str = "agent";
const PROCS: &str = "cgroup.procs";
/// Deeper than we and the agent nest.
const DEPTH: u32 = 3;

/// Our parent in each hierarchy that there is and that we may write.
#[derive(Default)]
pub(crate) struct Cgroups {
    v2: Option<OwnedFd>,
    v2_limits: bool,
    v1_memory: Option<OwnedFd>,
    v1_cpu: Option<OwnedFd>,
    v1_pids: Option<OwnedFd>,
}

impl Cgroups {
    /// Opens the parents by their paths, which later are out of sight.
    pub(crate) fn open(parents: &Parents, unconfined: bool) -> Outcome<Self> {
        let open = |path: &Option<String>| -> Outcome<Option<OwnedFd>> {
            let Some(path) = path else { return Ok(None) };
            openat(CWD, path.as_str(), DIRECTORY, Mode::empty()).map(Some).step("open the cgroups")
        };
        if unconfined {
            return Ok(Self { v2: open(&parents.v2)?, ..Self::default() });
        }
        Ok(Self {
            v2: open(&parents.v2)?,
            v2_limits: parents.v2_limits,
            v1_memory: open(&parents.v1_memory)?,
            v1_cpu: open(&parents.v1_cpu)?,
            v1_pids: open(&parents.v1_pids)?,
        })
    }

    fn v1(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.v1_memory, &self.v1_cpu, &self.v1_pids].into_iter().flatten()
    }

    /// Makes the v2 directory, with the agent's leaf and that of its first command. `owner`: who
    /// makes leaves in it.
    pub(crate) fn make_v2(&self, id: &str, owner: u32) -> Outcome<Option<OwnedFd>> {
        let Some(parent) = &self.v2 else { return Ok(None) };
        let make = || -> Sys<OwnedFd> {
            let dir = make(parent, id)?;
            let agent = make(&dir, AGENT)?;
            let first = make(&dir, agent::FIRST_EXEC)?;
            if owner != 0 {
                let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
                // Moving from leaf to leaf asks for the right to write to what is above both.
                for name in ["", PROCS] {
                    chownat(&dir, name, uid, gid, AtFlags::EMPTY_PATH)?;
                }
                for (leaf, name) in
                    [(&agent, PROCS), (&first, ""), (&first, PROCS), (&first, "cgroup.kill")]
                {
                    unless_absent(chownat(leaf, name, uid, gid, AtFlags::EMPTY_PATH))?;
                }
            }
            Ok(dir)
        };
        make().map(Some).step("make its cgroup")
    }

    /// A directory below a sandbox's own.
    pub(crate) fn leaf(dir: &OwnedFd, name: &str) -> Sys<OwnedFd> {
        openat(dir, name, DIRECTORY, Mode::empty())
    }

    /// Makes the v1 directories and sets the limits everywhere.
    pub(crate) fn make_limits(&self, spec: &SpawnSpec, v2: Option<&OwnedFd>) -> Outcome<()> {
        self.limit_memory(spec, v2).step("limit its memory")?;
        self.limit_cpu(spec, v2).step("limit its CPU time")?;
        self.limit_pids(spec, v2).step("limit its processes")
    }

    fn limit_memory(&self, spec: &SpawnSpec, v2: Option<&OwnedFd>) -> Sys<()> {
        let bytes = spec.memory_bytes;
        if let Some(parent) = &self.v1_memory {
            let dir = make(parent, &spec.id)?;
            if bytes > 0 {
                write(&dir, "memory.limit_in_bytes", bytes)?;
                // Memory and swap together; absent where swap is not counted.
                unless_absent(write(&dir, "memory.memsw.limit_in_bytes", bytes))?;
            }
        } else if let Some(dir) = v2.filter(|_| self.v2_limits && bytes > 0) {
            write(dir, "memory.max", bytes)?;
            unless_absent(write(dir, "memory.swap.max", 0))?;
        }
        Ok(())
    }

    /// The file that counts a sandbox's OOM kills.
    pub(crate) fn oom_events(&self, id: &str) -> Option<OwnedFd> {
        let (parent, file) = match (&self.v1_memory, &self.v2) {
            (Some(parent), _) => (parent, "memory.oom_control"),
            (None, Some(parent)) if self.v2_limits => (parent, "memory.events"),
            (None, _) => return None,
        };
        openat(parent, format!("{id}/{file}"), READ, Mode::empty()).ok()
    }

    /// Our parents in all hierarchies.
    fn parents(&self) -> impl Iterator<Item = &OwnedFd> {
        self.v2.iter().chain(self.v1())
    }

    fn limit_cpu(&self, spec: &SpawnSpec, v2: Option<&OwnedFd>) -> Sys<()> {
        /// In microseconds; a thousandth of a CPU is a thousandth of it.
        const PERIOD: u64 = 100_000;
        let quota = u64::from(spec.cpu_millis) * PERIOD / 1000;
        if let Some(parent) = &self.v1_cpu {
            let dir = make(parent, &spec.id)?;
            if quota > 0 {
                write(&dir, "cpu.cfs_quota_us", quota)?;
            }
        } else if let Some(dir) = v2.filter(|_| self.v2_limits && quota > 0) {
            write_text(dir, "cpu.max", &format!("{quota} {PERIOD}"))?;
        }
        Ok(())
    }

    fn limit_pids(&self, spec: &SpawnSpec, v2: Option<&OwnedFd>) -> Sys<()> {
        let pids = u64::from(spec.pids);
        if let Some(parent) = &self.v1_pids {
            let dir = make(parent, &spec.id)?;
            if pids > 0 {
                write(&dir, "pids.max", pids)?;
            }
        } else if let Some(dir) = v2.filter(|_| self.v2_limits && pids > 0) {
            write(dir, "pids.max", pids)?;
        }
        Ok(())
    }

    /// Puts a process into the directories. On v2 above the leaves: only inside the root of its
    /// cgroup namespace, which is to be there, may a process be moved from leaf to leaf.
    pub(crate) fn enter(&self, id: &str, pid: i32) -> Outcome<()> {
        self.parents()
            .try_for_each(|parent| write(parent, &format!("{id}/{PROCS}"), pid as u64))
            .step("put it into its cgroups")
    }

    /// Kills whatever is in a sandbox's cgroups.
    pub(crate) fn kill(&self, id: &str) {
        if let Some(parent) = &self.v2
            && write(parent, &format!("{id}/cgroup.kill"), 1).is_ok()
        {
            return;
        }
        for parent in self.parents() {
            for pid in pids(parent, id) {
                sys::kill(pid);
            }
        }
    }

    /// Removes a sandbox's cgroups. `false` while a process is in one.
    pub(crate) fn remove(&self, id: &str) -> Sys<bool> {
        let mut gone = true;
        for parent in self.parents() {
            gone &= remove(parent, id, DEPTH)?;
        }
        Ok(gone)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// Makes a directory that may be there already, left by a spawn that was cut short.
fn make(parent: &OwnedFd, name: &str) -> Sys<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => openat(parent, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

fn write(dir: &OwnedFd, file: &str, number: u64) -> Sys<()> {
    write_text(dir, file, &number.to_string())
}

fn write_text(dir: &OwnedFd, file: &str, text: &str) -> Sys<()> {
    let file = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes()).map(drop)
}

fn unless_absent(done: Sys<()>) -> Sys<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// The processes of `<id>` and of what lies below it.
fn pids(parent: &OwnedFd, id: &str) -> Vec<i32> {
    let Ok(dir) = openat(parent, id, DIRECTORY, Mode::empty()) else { return Vec::new() };
    let mut found = Vec::new();
    if let Ok(file) = openat(&dir, "cgroup.procs", READ, Mode::empty()) {
        let mut text = Vec::new();
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut text);
        let text = String::from_utf8_lossy(&text);
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 1));
    }
    for name in children(&dir) {
        found.extend(pids(&dir, &name));
    }
    found
}

fn children(dir: &OwnedFd) -> Vec<String> {
    let Ok(entries) = Dir::read_from(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|e| e.file_type() == rustix::fs::FileType::Directory)
        .filter_map(|e| e.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name != "." && name != "..")
        .collect()
}

fn remove(parent: &OwnedFd, name: &str, depth: u32) -> Sys<bool> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) if depth > 0 => {}
        Err(Errno::BUSY) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let dir = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(true),
        Err(errno) => return Err(errno),
    };
    for child in children(&dir) {
        remove(&dir, &child, depth - 1)?;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(errno) => Err(errno),
    }
}
