//! Prepared slots: a range of ids with a user namespace that maps it, and a network namespace with
//! its loopback up. They take longest to make, so some are kept ready.
//!
//! Each is made by a helper process, since a user namespace is born with a process. Namespaces are
//! used once; the range of a slot is handed out again when its sandbox has been released.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use crate::machine::{Machine, RANGE};
use crate::step::{Outcome, Step};
use crate::sys::{self, Side};

/// Helpers at once.
const HELPERS: usize = 4;

/// Ready to be used, once.
pub(crate) struct Slot {
    pub number: u32,
    pub user: OwnedFd,
    pub net: OwnedFd,
}

/// Whether slots are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    None,
    /// The pool is not full.
    Some,
    /// The pool is nearly empty, or somebody waits.
    Urgent,
}

struct Helper {
    number: u32,
    pid: i32,
    /// Tells that the loopback is up; closing it ends the helper.
    sync: OwnedFd,
}

pub(crate) struct Slots {
    /// How many there are, and how many to keep ready.
    count: u32,
    pool: usize,
    /// In use, being made, or ready.
    taken: BTreeSet<u32>,
    helpers: Vec<Helper>,
    ready: VecDeque<Slot>,
}

impl Slots {
    pub(crate) fn new(machine: &Machine, pool: u32, used: &[u32]) -> Self {
        let count = machine.ids.map_or(u32::MAX, |ids| ids.count);
        Self {
            count,
            pool: if machine.unconfined { 0 } else { pool as usize },
            taken: used.iter().copied().collect(),
            helpers: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// A prepared slot; `wanted` decides between any and a certain one.
    pub(crate) fn take(&mut self, wanted: Option<u32>) -> Option<Slot> {
        let Some(number) = wanted else { return self.ready.pop_front() };
        let at = self.ready.iter().position(|slot| slot.number == number)?;
        self.ready.remove(at)
    }

    /// It is in use: by a sandbox of an earlier spawner.
    pub(crate) fn adopt(&mut self, number: u32) {
        self.taken.insert(number);
    }

    /// Its sandbox is gone.
    pub(crate) fn free(&mut self, number: u32) {
        self.taken.remove(&number);
    }

    /// Whether some will be ready without anything being released.
    pub(crate) fn are_coming(&self) -> bool {
        !self.helpers.is_empty() || !self.ready.is_empty()
    }

    /// How pressing it is to make more, with so many waiting for one.
    pub(crate) fn shortage(&self, waiting: usize) -> Shortage {
        let coming = self.ready.len() + self.helpers.len();
        let room = self.taken.len() < self.count as usize;
        if waiting > 0 || room && coming < self.pool / 2 {
            Shortage::Urgent
        } else if room && coming < self.pool {
            Shortage::Some
        } else {
            Shortage::None
        }
    }

    /// Starts a helper if one is missing, for as many as wait and the pool. Returns its descriptor,
    /// to be watched under its slot's number.
    pub(crate) fn prepare(&mut self, waiting: &[Option<u32>]) -> Outcome<Option<(u32, &OwnedFd)>> {
        let coming = self.ready.len() + self.helpers.len();
        let certain =
            waiting.iter().flatten().find(|n| !self.taken.contains(n) && **n < self.count);
        let number = match certain {
            Some(number) => *number,
            None if self.helpers.len() >= HELPERS || coming >= self.pool.max(waiting.len()) => {
                return Ok(None);
            }
            None => match (0..self.count).find(|n| !self.taken.contains(n)) {
                Some(number) => number,
                None => return Ok(None),
            },
        };
        let helper = start(number)?;
        self.taken.insert(number);
        self.helpers.push(helper);
        Ok(self.helpers.last().map(|helper| (helper.number, &helper.sync)))
    }

    /// A helper has something to tell.
    pub(crate) fn on_helper(&mut self, number: u32, machine: &Machine) -> Outcome<()> {
        let Some(at) = self.helpers.iter().position(|h| h.number == number) else { return Ok(()) };
        let helper = self.helpers.swap_remove(at);
        match finish(&helper, machine) {
            Ok(slot) => {
                self.ready.push_back(slot);
                Ok(())
            }
            Err(failed) => {
                self.taken.remove(&number);
                Err(failed)
            }
        }
    }
}

fn start(number: u32) -> Outcome<Helper> {
    let (sync, far) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .step("prepare namespaces")?;
    match sys::fork(libc::CLONE_NEWUSER | libc::CLONE_NEWNET, None).step("prepare namespaces")? {
        Side::Child => help(sync, &far),
        Side::Parent(pid) => Ok(Helper { number, pid, sync }),
    }
}

/// The helper: sets its loopback up, says so, and waits until its namespaces have been opened.
fn help(near: OwnedFd, far: &OwnedFd) -> ! {
    drop(near);
    let errno = match sys::loopback_up() {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    };
    let _ = send(far, &errno.to_ne_bytes(), SendFlags::NOSIGNAL);
    let _ = recv(far, &mut [0; 1][..], RecvFlags::empty());
    sys::exit(0)
}

fn finish(helper: &Helper, machine: &Machine) -> Outcome<Slot> {
    let mut errno = [0; 4];
    let (_, got) =
        recv(&helper.sync, &mut errno[..], RecvFlags::DONTWAIT).step("prepare namespaces")?;
    let result = match (got, i32::from_ne_bytes(errno)) {
        (4, 0) => Ok(()),
        (4, errno) => Err(Errno::from_raw_os_error(errno)),
        (_, _) => Err(Errno::CHILD),
    };
    result.step("set the loopback up")?;
    let proc = format!("/proc/{}", helper.pid);
    let map = match machine.ids {
        Some(_) => format!("0 {} {RANGE}", machine.base(helper.number)),
        None => "0 0 1".to_owned(),
    };
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("{proc}/{file}"), &map).step("map a range of user ids")?;
    }
    let open = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        openat(CWD, format!("{proc}/ns/{name}"), flags, Mode::empty()).step("open namespaces")
    };
    Ok(Slot { number: helper.number, user: open("user")?, net: open("net")? })
}
