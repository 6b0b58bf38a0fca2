//! The user and the network namespace of a slot.
//!
//! Namespaces are born with a process. This one shares our memory, so that nothing is copied for
//! it, does nothing, and is killed as soon as they are held open.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::machine::{Machine, RANGE};
use crate::step::{Outcome, Step};
use crate::sys;

/// Bytes of the process's stack: it makes three system calls.
const STACK: usize = 16 << 10;

/// Two namespaces, to be used once.
pub(crate) struct Slot {
    pub number: u32,
    pub user: OwnedFd,
    pub net: OwnedFd,
}

/// Makes them, one pair after the other.
#[derive(Default)]
pub(crate) struct Namespaces {
    stack: Vec<u8>,
    /// The process that was the last to be on that stack, killed.
    last: Option<i32>,
}

impl Namespaces {
    /// Takes about half a millisecond, nearly all of it the kernel's own for the network.
    pub(crate) fn make(&mut self, number: u32, machine: &Machine) -> Outcome<Slot> {
        if let Some(last) = self.last.take() {
            sys::wait_for(last);
        }
        self.stack.reserve(STACK);
        let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
        let pid = sys::idle_process(namespaces, self.stack.spare_capacity_mut())
            .step("prepare namespaces")?;
        let slot = open(number, pid, machine);
        sys::kill(pid);
        self.last = Some(pid);
        slot
    }
}

/// Maps the ids and opens both.
fn open(number: u32, pid: i32, machine: &Machine) -> Outcome<Slot> {
    let map = match machine.ids {
        Some(_) => format!("0 {} {RANGE}", machine.base(number)),
        None => "0 0 1".to_owned(),
    };
    for file in ["uid_map", "gid_map"] {
        let done = openat(CWD, format!("/proc/{pid}/{file}"), OFlags::WRONLY, Mode::empty())
            .and_then(|file| rustix::io::write(file, map.as_bytes()));
        done.step("map a range of user ids")?;
    }
    let open = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{pid}/ns/{name}"), flags, Mode::empty()).step("open namespaces")
    };
    Ok(Slot { number, user: open("user")?, net: open("net")? })
}
