//! The last steps: what can't be taken back. From here on this process is root of a user namespace
//! that owns nothing but its network.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, clear_ambient_capability_set,
    move_into_link_name_space, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::machine::Machine;
use crate::step::{Outcome, Step};
use crate::sys;

/// Docker's default ones less NET_RAW, MKNOD and AUDIT_WRITE: enough for apt, su and chown, and
/// good for nothing outside of the sandbox's own ids.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SETFCAP);
/// Enough for anything sane, few enough that the host's own tables don't fill.
const OPEN_FILES: u64 = 65_536;

pub(super) fn enter(machine: &Machine, userns: &OwnedFd) -> Outcome<()> {
    move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User))
        .step("enter its user namespace")?;
    if machine.ids.is_some() {
        set_thread_groups(&[]).step("drop its groups")?;
    }
    let (root, group) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(group, group, group).step("become its root")?;
    set_thread_res_uid(root, root, root).step("become its root")?;
    drop_capabilities(machine).step("drop capabilities")?;
    set_no_new_privs(true).step("forbid new privileges")?;
    set_limits(machine).step("limit its resources")?;
    sys::load_filter(&machine.filter).step("load its filter")
}

fn drop_capabilities(machine: &Machine) -> sys::Sys<()> {
    clear_ambient_capability_set()?;
    for number in 0..=machine.last_capability {
        if CAPABILITIES.bits() & (1 << number) == 0 {
            sys::drop_from_bounding_set(number)?;
        }
    }
    let none = CapabilitySet::empty();
    let sets =
        CapabilitySets { effective: CAPABILITIES, permitted: CAPABILITIES, inheritable: none };
    set_capabilities(None, sets)
}

fn set_limits(machine: &Machine) -> sys::Sys<()> {
    let files = machine.open_files.min(OPEN_FILES);
    sys::limit(libc::RLIMIT_NOFILE, files, files)?;
    // One byte: no core file, and no helper of the host's is started for one either.
    let core = sys::hard_limit(libc::RLIMIT_CORE).min(1);
    sys::limit(libc::RLIMIT_CORE, core, core)
}
