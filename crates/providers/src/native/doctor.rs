//! What `stacyvm doctor` says about this host. Changes nothing.

use std::path::Path;

use super::StorageChoice;
use super::storage::mkfs_program;
use crate::host::{Hierarchies, has_full_uid_map, mounts};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    Ok,
    /// Sandboxes work, with something less.
    Warn,
    /// No sandbox can be made.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub status: CheckStatus,
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: CheckStatus, message: impl Into<String>) -> Self {
        Self { name, status, message: message.into(), fix: None }
    }

    fn fix(mut self, fix: &str) -> Self {
        self.fix = Some(fix.to_owned());
        self
    }
}

/// Looks at the host. `disk_dir`: where the disk store is or would be. Reads files only; run it off
/// the async threads.
pub fn doctor(storage: StorageChoice, disk_dir: &Path) -> Vec<Check> {
    vec![
        kernel(),
        user_namespaces(),
        overlay(),
        seccomp(),
        cgroups(),
        uid_range(),
        disk_store(storage, disk_dir),
    ]
}

/// Overlay within user namespaces.
const OLDEST_KERNEL: (u32, u32) = (5, 11);

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        let message = format!("Linux {release} is too old");
        return Check::new("kernel", CheckStatus::Fail, message).fix("use Linux 5.11 or newer");
    }
    Check::new("kernel", CheckStatus::Ok, format!("Linux {release}"))
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    let number = |file: &str| read(file).trim().parse::<u64>().ok();
    let root = rustix::process::geteuid().is_root();
    if !Path::new("/proc/self/ns/user").exists()
        || number("/proc/sys/user/max_user_namespaces") == Some(0)
    {
        return Check::new(name, CheckStatus::Fail, "switched off")
            .fix("sysctl -w user.max_user_namespaces=15000");
    }
    if !root && number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Check::new(name, CheckStatus::Fail, "refused to ordinary users")
            .fix("sysctl -w kernel.unprivileged_userns_clone=1, or run as root");
    }
    if !root && number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Check::new(name, CheckStatus::Fail, "AppArmor keeps them from ordinary users")
            .fix("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root");
    }
    Check::new(name, CheckStatus::Ok, "available")
}

fn overlay() -> Check {
    if has_filesystem("overlay") || Path::new("/sys/module/overlay").exists() {
        return Check::new("overlay", CheckStatus::Ok, "available");
    }
    Check::new("overlay", CheckStatus::Fail, "this kernel does not have it now")
        .fix("modprobe overlay")
}

fn seccomp() -> Check {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    if actions.contains("errno") {
        return Check::new("seccomp", CheckStatus::Ok, "filters are available");
    }
    Check::new("seccomp", CheckStatus::Fail, "this kernel has no seccomp filters")
        .fix("use a kernel with CONFIG_SECCOMP_FILTER")
}

fn cgroups() -> Check {
    let found = mounts().map(|m| Hierarchies::find(&m)).unwrap_or_default();
    let kind = found.kind();
    let writable = found.writable();
    let v2_limits = writable.v2.as_ref().is_some_and(|dir| {
        let has = read(&dir.join("cgroup.controllers").to_string_lossy());
        ["memory", "cpu", "pids"].iter().all(|c| has.split_whitespace().any(|w| w == *c))
    });
    let held = [
        ("memory", v2_limits || writable.v1_memory.is_some()),
        ("CPU", v2_limits || writable.v1_cpu.is_some()),
        ("pids", v2_limits || writable.v1_pids.is_some()),
    ];
    let missing: Vec<&str> = held.iter().filter(|(_, ok)| !ok).map(|(what, _)| *what).collect();
    if missing.is_empty() {
        return Check::new("cgroups", CheckStatus::Ok, format!("{kind}, all limits are enforced"));
    }
    let message = format!("{kind}; no limit on {}", missing.join(", "));
    Check::new("cgroups", CheckStatus::Warn, message)
        .fix("run as root, where /sys/fs/cgroup is mounted writable with these controllers")
}

fn uid_range() -> Check {
    if has_full_uid_map() {
        return Check::new("uid range", CheckStatus::Ok, "each sandbox has 65536 ids of its own");
    }
    let message = "rootless: all files and processes inside belong to your user";
    Check::new("uid range", CheckStatus::Warn, message).fix("run as root")
}

fn disk_store(storage: StorageChoice, dir: &Path) -> Check {
    let name = "disk store";
    if storage == StorageChoice::Tmpfs {
        let message = "not wanted: providers.native.storage is `tmpfs`";
        return Check::new(name, CheckStatus::Ok, message);
    }
    let worse = match storage {
        StorageChoice::Disk => CheckStatus::Fail,
        StorageChoice::Auto | StorageChoice::Tmpfs => CheckStatus::Warn,
    };
    let instead = "sandboxes write to tmpfs, and their files take memory";
    let problem =
        |what: &str, fix: &str| Check::new(name, worse, format!("{what}; {instead}")).fix(fix);
    if !rustix::process::geteuid().is_root() {
        return problem("only root can mount one", "run as root");
    }
    if !has_filesystem("btrfs") && !Path::new("/sys/module/btrfs").exists() {
        return problem("this kernel does not have btrfs now", "modprobe btrfs");
    }
    if !Path::new("/dev/loop-control").exists() {
        return problem("there is no /dev/loop-control", "modprobe loop");
    }
    if mkfs_program().is_none() && !dir.join("store.btrfs").exists() {
        return problem("mkfs.btrfs is missing", "install btrfs-progs");
    }
    Check::new(name, CheckStatus::Ok, "btrfs, with a limit for each sandbox")
}

fn has_filesystem(name: &str) -> bool {
    read("/proc/filesystems").lines().any(|l| l.split_whitespace().last() == Some(name))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_less_than_ok_says_what_to_do() {
        for choice in [StorageChoice::Auto, StorageChoice::Disk, StorageChoice::Tmpfs] {
            let checks = doctor(choice, Path::new("/nonexistent"));
            assert_eq!(checks.len(), 7);
            for check in checks {
                assert!(!check.message.is_empty());
                assert_eq!(check.fix.is_some(), check.status != CheckStatus::Ok, "{check:?}");
            }
        }
    }
}
