//! The kernel's choice between fast forks and fast moves between cgroups.
//!
//! By default the first move after a quiet time waits for every CPU, some 5 to 20 ms. Sandboxes are
//! put into cgroups all the time, so while a spawner runs the choice is the other one, at a few
//! nanoseconds a fork. It holds for the whole host, and is put back at the end by who changed it.

use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::spawner::Cgroups;
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};

use crate::sys::Sys;

const FLAG: &str = "favordynmods";

/// The changed choice; dropping it changes it back.
pub(crate) struct Dynmods {
    fs: OwnedFd,
    /// The file system's other flags, which a change has to repeat.
    others: Vec<String>,
}

impl Dynmods {
    /// `None`: chosen already, or not ours to choose.
    pub(crate) fn favor(cgroups: &Cgroups) -> Option<Self> {
        let ours = Path::new(cgroups.v2.as_ref()?);
        let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (point, flags) =
            table.lines().filter_map(cgroup2).find(|(p, _)| ours.starts_with(p))?;
        if flags.contains(&FLAG) {
            return None;
        }
        let pick = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_NO_AUTOMOUNT;
        let fs = fspick(CWD, point, pick).ok()?;
        let others = flags.into_iter().map(str::to_owned).collect();
        let dynmods = Self { fs, others };
        dynmods.set(true).ok()?;
        Some(dynmods)
    }

    fn set(&self, on: bool) -> Sys<()> {
        for flag in &self.others {
            fsconfig_set_flag(&self.fs, flag.as_str())?;
        }
        if on {
            fsconfig_set_flag(&self.fs, FLAG)?;
        }
        fsconfig_reconfigure(&self.fs)
    }
}

impl Drop for Dynmods {
    fn drop(&mut self) {
        let _ = self.set(false); // it costs little if it stays
    }
}

/// Mount point and own flags of a cgroup2 line of the mount table.
fn cgroup2(line: &str) -> Option<(&str, Vec<&str>)> {
    let (mount, fs) = line.split_once(" - ")?;
    let mut fs = fs.split(' ');
    let options = fs.next().filter(|kind| *kind == "cgroup2").and_then(|_| fs.nth(1))?;
    let flags = options.split(',').filter(|o| !matches!(*o, "rw" | "ro")).collect();
    Some((mount.split(' ').nth(4)?, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_table_are_kept() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 \
                    rw,nsdelegate,memory_recursiveprot";
        let found = cgroup2(line).unwrap();
        assert_eq!(found, ("/sys/fs/cgroup/unified", vec!["nsdelegate", "memory_recursiveprot"]));
        assert_eq!(cgroup2("34 31 0:31 / /x rw - cgroup cgroup rw,memory"), None);
        assert_eq!(cgroup2("34 31 0:31 / /x rw - cgroup2 cgroup2 rw").unwrap().1, [""; 0]);
    }
}
