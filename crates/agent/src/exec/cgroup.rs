//! A cgroup for each exec, below the sandbox's own: whoever descends from the exec is in it.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::sys;

/// The leaf of the first command, which may be there already.
pub const FIRST_EXEC: &str = "exec-0";
/// Emptied ones kept for the next execs: making one costs more than starting with one.
const FREE: usize = 4;
/// Ones with processes that outlived their exec that are looked at for each new exec, so that the
/// cost of a start does not grow with their number.
const LOOKS: usize = 4;

/// The cgroup of one exec.
#[derive(Debug)]
pub(crate) struct Cgroup {
    number: u32,
}

/// The cgroups of all execs.
pub(crate) struct Cgroups {
    dir: OwnedFd,
    next: u32,
    free: Vec<Cgroup>,
    /// Their execs have ended, processes live on in them.
    lingering: Vec<Cgroup>,
}

impl Cgroups {
    /// Makes the first one, as a proof that this can be done.
    pub(crate) fn open(dir: OwnedFd) -> Result<Self, Errno> {
        let mut groups = Self { dir, next: 0, free: Vec::new(), lingering: Vec::new() };
        let first = groups.take()?;
        groups.procs(&first)?;
        groups.free.push(first);
        Ok(groups)
    }

    /// An empty cgroup.
    pub(crate) fn take(&mut self) -> Result<Cgroup, Errno> {
        for _ in 0..LOOKS.min(self.lingering.len()) {
            let group = self.lingering.remove(0);
            self.give(group);
        }
        if let Some(group) = self.free.pop() {
            return Ok(group);
        }
        let group = Cgroup { number: self.next };
        match mkdirat(&self.dir, group.path(""), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        self.next += 1;
        Ok(group)
    }

    /// `cgroup.procs`, for a process to enter.
    pub(crate) fn procs(&self, group: &Cgroup) -> Result<OwnedFd, Errno> {
        self.file(group, "cgroup.procs", OFlags::WRONLY)
    }

    /// Takes back the cgroup of an exec that has ended.
    pub(crate) fn give(&mut self, group: Cgroup) {
        if self.is_populated(&group) {
            self.lingering.push(group);
        } else if self.free.len() < FREE {
            self.free.push(group);
        } else if unlinkat(&self.dir, group.path(""), AtFlags::REMOVEDIR).is_err() {
            self.lingering.push(group);
        }
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self, group: &Cgroup) {
        let killed = self
            .file(group, "cgroup.kill", OFlags::WRONLY)
            .and_then(|file| rustix::io::write(file, b"1"));
        if killed.is_err() {
            self.kill_each(group);
        }
    }

    fn all<'a>(&'a self, running: &'a [Cgroup]) -> impl Iterator<Item = &'a Cgroup> {
        running.iter().chain(&self.lingering).chain(&self.free)
    }

    /// Kills what runs and what execs left.
    pub(crate) fn kill_all(&self, running: &[Cgroup]) {
        self.all(running).for_each(|group| self.kill(group));
    }

    /// Removes the cgroups, once they are empty.
    pub(crate) fn remove_all(&self, running: &[Cgroup]) {
        for group in self.all(running) {
            let _ = unlinkat(&self.dir, group.path(""), AtFlags::REMOVEDIR);
        }
    }

    /// Older kernels have no `cgroup.kill`. Several rounds, for those that fork meanwhile.
    fn kill_each(&self, group: &Cgroup) {
        for _ in 0..20 {
            let Ok(file) = self.file(group, "cgroup.procs", OFlags::RDONLY) else { return };
            let mut bytes = vec![0; 16 * 1024];
            let n = rustix::io::read(file, &mut bytes[..]).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..n]);
            let pids: Vec<i32> = text.lines().filter_map(|l| l.parse().ok()).collect();
            // 0 stands for a process outside of our PID namespace.
            for pid in pids.iter().filter(|pid| **pid > 1) {
                let _ = sys::kill(*pid, libc::SIGKILL);
            }
            if pids.is_empty() {
                return;
            }
        }
    }

    fn is_populated(&self, group: &Cgroup) -> bool {
        let mut bytes = [0; 128];
        let read = self
            .file(group, "cgroup.events", OFlags::RDONLY)
            .and_then(|file| rustix::io::read(file, &mut bytes));
        match read {
            Ok(n) => String::from_utf8_lossy(&bytes[..n]).lines().any(|l| l == "populated 1"),
            Err(_) => true,
        }
    }

    fn file(&self, group: &Cgroup, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&self.dir, group.path(name), flags | OFlags::CLOEXEC, Mode::empty())
    }
}

impl Cgroup {
    fn path(&self, file: &str) -> String {
        format!("exec-{}/{file}", self.number)
    }
}
