//! Finds the host's cgroup hierarchies, and the directory of one sandbox in each.
//!
//! The spawner makes `<parent>/<sandbox id>` in every hierarchy, sets the limits and removes them.
//! Here they are found, read, and, for a kill, written. Works on v1, v2 and hybrids: limits where
//! the controllers are, kill and CPU time where v2 is.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use protocol::spawner::Cgroups;
use rustix::fs::{Access, access};
use types::SandboxId;

use super::Identity;
use super::mountinfo::Mount;
use super::process::uids;

mod sandbox;

pub(crate) use sandbox::SandboxCgroups;

/// The hierarchies found on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    pub v2: Option<PathBuf>,
    pub v1_memory: Option<PathBuf>,
    pub v1_cpu: Option<PathBuf>,
    pub v1_pids: Option<PathBuf>,
}

impl Hierarchies {
    /// From a mount table, whether writable or not.
    pub fn find(mounts: &[Mount]) -> Self {
        let v1 = |controller: &str| {
            mounts.iter().find(|m| m.fs == "cgroup" && m.has(controller)).map(|m| m.point.clone())
        };
        Self {
            v2: mounts.iter().find(|m| m.fs == "cgroup2").map(|m| m.point.clone()),
            v1_memory: v1("memory"),
            v1_cpu: v1("cpu"),
            v1_pids: v1("pids"),
        }
    }

    /// `unified`, `hybrid`, `v1` or `none`.
    pub fn kind(&self) -> &'static str {
        let v1 = self.v1_memory.is_some() || self.v1_cpu.is_some() || self.v1_pids.is_some();
        match (&self.v2, v1) {
            (Some(_), false) => "unified",
            (Some(_), true) => "hybrid",
            (None, true) => "v1",
            (None, false) => "none",
        }
    }

    /// Those that this process may make cgroups in.
    pub fn writable(self) -> Self {
        let keep = |p: Option<PathBuf>| p.filter(|p| access(p, Access::WRITE_OK).is_ok());
        Self {
            v2: keep(self.v2),
            v1_memory: keep(self.v1_memory),
            v1_cpu: keep(self.v1_cpu),
            v1_pids: keep(self.v1_pids),
        }
    }
}

/// This server's parent cgroup in each hierarchy it may write.
#[derive(Debug, Clone, Default)]
pub(crate) struct CgroupTree {
    parents: Cgroups,
}

impl CgroupTree {
    /// Makes `stacyvm/<identity>` in each writable hierarchy.
    pub fn prepare(mounts: &[Mount], identity: &Identity) -> Self {
        let found = Hierarchies::find(mounts).writable();
        let make = |root: Option<PathBuf>| root.and_then(|r| make_parent(&r, identity));
        let v2_limits = found.v1_memory.is_none()
            && found.v2.as_deref().is_some_and(|root| delegate(root, identity).is_ok());
        let parents = Cgroups {
            v2: make(found.v2),
            v2_limits,
            v1_memory: make(found.v1_memory),
            v1_cpu: make(found.v1_cpu),
            v1_pids: make(found.v1_pids),
        };
        Self { parents }
    }

    /// What the spawner is told.
    pub fn parents(&self) -> &Cgroups {
        &self.parents
    }

    pub fn sandbox(&self, id: &SandboxId) -> SandboxCgroups {
        SandboxCgroups::new(&self.parents, id.as_str())
    }

    /// Whether a kill reaches every process of a sandbox at once.
    pub fn can_kill(&self) -> bool {
        self.parents.v2.as_ref().is_some_and(|p| Path::new(p).join("cgroup.kill").exists())
    }

    /// Whether there is no hierarchy to make cgroups in, as for an ordinary user.
    pub fn is_absent(&self) -> bool {
        self.each().next().is_none()
    }

    fn each(&self) -> impl Iterator<Item = &Path> {
        let p = &self.parents;
        [&p.v2, &p.v1_memory, &p.v1_cpu, &p.v1_pids].into_iter().flatten().map(Path::new)
    }

    /// The sandboxes that have a cgroup anywhere. What the spawner keeps for itself has names that
    /// are no ids.
    pub fn sandboxes(&self) -> BTreeSet<SandboxId> {
        let names = self.each().flat_map(children);
        names.filter_map(|name| SandboxId::parse(name).ok()).collect()
    }

    /// Uid ranges that living processes of our sandboxes use, as slots of `first`.
    pub fn slots_in_use(&self, first: u32, count: u32) -> BTreeSet<u32> {
        let mut slots = BTreeSet::new();
        for id in self.sandboxes() {
            let process = self.sandbox(&id).any_process();
            let uids = process.map(|p| uids(p.pid)).unwrap_or_default();
            let slot_of = |uid: u32| uid.checked_sub(first).map(|ids| ids >> 16);
            slots.extend(uids.into_iter().filter_map(slot_of).filter(|slot| *slot < count));
        }
        slots
    }

    /// Removes the parents, if no sandbox is left in them.
    pub fn remove_if_empty(&self) {
        for parent in self.each() {
            for name in children(parent).filter(|name| SandboxId::parse(name.as_str()).is_err()) {
                let _ = std::fs::remove_dir(parent.join(name));
            }
            if std::fs::remove_dir(parent).is_ok()
                && let Some(ours) = parent.parent()
            {
                let _ = std::fs::remove_dir(ours); // still used by others, most of the time
            }
        }
    }
}

fn children(parent: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
}

fn make_parent(root: &Path, identity: &Identity) -> Option<String> {
    let parent = root.join("stacyvm").join(identity.name());
    std::fs::create_dir_all(&parent).ok()?;
    parent.into_os_string().into_string().ok()
}

/// Hands memory, CPU and pids down to our parent's children on v2.
fn delegate(root: &Path, identity: &Identity) -> io::Result<()> {
    let ours = root.join("stacyvm");
    let parent = ours.join(identity.name());
    std::fs::create_dir_all(&parent)?;
    for dir in [root, ours.as_path(), parent.as_path()] {
        std::fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mountinfo::parse;
    use super::*;

    #[test]
    fn hybrids_unified_and_bare_hosts_are_told_apart() {
        let hybrid = "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             35 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             36 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let found = Hierarchies::find(&parse(hybrid));
        assert_eq!(found.kind(), "hybrid");
        assert_eq!(found.v1_cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let unified = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Hierarchies::find(&parse(unified)).kind(), "unified");
        assert_eq!(Hierarchies::find(&[]).kind(), "none");
        let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(Hierarchies::find(&parse(named)).kind(), "none");
    }
}
