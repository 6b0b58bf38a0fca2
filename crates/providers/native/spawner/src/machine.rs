//! What is found out once: how this machine isolates, and what its procfs shows.

use std::os::unix::fs::MetadataExt;

use protocol::spawner::{Cgroups, HostFacts, Setup, UidRanges};

use crate::seccomp;
use crate::warm::Warm;

/// Files of procfs that tell of the host or reach into it. Covered by `/dev/null`, unless their mode
/// keeps everybody out but the host's root, who is nobody inside.
const FILES: [&str; 11] = [
    "cmdline",
    "interrupts",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "swaps",
    "sysrq-trigger",
    "timer_list",
];
/// Folders likewise, covered by nothing; `sys` is shown, but read-only.
const FOLDERS: [&str; 8] = ["acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi"];

/// Ids of a range.
pub(crate) const RANGE: u32 = 1 << 16;

/// The same for all sandboxes.
pub(crate) struct Machine {
    /// Ranges of ids to hand out; `None`: an ordinary user's one id is all there is.
    pub ids: Option<UidRanges>,
    pub unconfined: bool,
    pub covered_files: Vec<&'static str>,
    pub covered_folders: Vec<&'static str>,
    /// Bounding capabilities above this number don't exist here.
    pub last_capability: u32,
    pub filter: Vec<libc::sock_filter>,
    /// The hard limit of open files.
    pub open_files: u64,
    pub warm: Warm,
}

impl Machine {
    /// Looks at the host's procfs, at `/proc`.
    pub(crate) fn look(setup: &Setup) -> Self {
        let proc = std::path::Path::new("/proc");
        let there = |name: &&str| proc.join(name).exists();
        let open = |name: &&str| proc.join(name).metadata().is_ok_and(|m| m.mode() & 0o077 != 0);
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        Self {
            ids: setup.uid_ranges,
            unconfined: setup.unconfined,
            covered_files: FILES.into_iter().filter(open).collect(),
            covered_folders: FOLDERS.into_iter().filter(there).collect(),
            last_capability: last.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(63),
            filter: seccomp::program(),
            open_files: crate::sys::hard_limit(libc::RLIMIT_NOFILE),
            warm: Warm::look(),
        }
    }

    /// The first id, on the host, of a range; an ordinary user is root in its own namespace.
    pub(crate) fn base(&self, slot: u32) -> u32 {
        self.ids.map_or(0, |ids| ids.first + slot * RANGE)
    }
}

/// What can be promised with these hierarchies.
pub(crate) fn facts(setup: &Setup) -> HostFacts {
    let Cgroups { v2, v2_limits, v1_memory, v1_cpu, v1_pids } = &setup.cgroups;
    let limits = !setup.unconfined;
    let kill =
        v2.as_ref().is_some_and(|dir| std::path::Path::new(dir).join("cgroup.kill").exists());
    HostFacts {
        uid_range: setup.uid_ranges.is_some(),
        memory_limit: limits && (*v2_limits || v1_memory.is_some()),
        cpu_limit: limits && (*v2_limits || v1_cpu.is_some()),
        pids_limit: limits && (*v2_limits || v1_pids.is_some()),
        cgroup_kill: kill,
    }
}
