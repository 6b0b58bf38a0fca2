//! The spawner's side of a sandbox's making: the order, limits, and the report from inside.
//!
//! The clone builds its file system while we make its cgroups; it goes on to become root of its
//! user namespace only when it has been told that the limits hold.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::spawner::{Made, Root};
use rustix::net::{RecvFlags, recv};

use crate::cgroups::{AGENT, Cgroups};
use crate::inside::{self, Order};
use crate::machine::Machine;
use crate::prepared::{Prepared, go_on, line};
use crate::step::{Failed, Outcome, Step};
use crate::sys::{self, Side};

/// A report: an error number and a step.
const REPORT: usize = 256;
/// More than a line of /proc/PID/stat.
const STAT: usize = 1024;

/// A sandbox to make.
pub(crate) struct Wanted {
    /// The number of the order to us.
    pub n: u64,
    pub order: Order,
}

/// A sandbox being made.
pub(crate) struct Birth {
    pub n: u64,
    pub id: String,
    pub slot: Option<u32>,
    pid: i32,
    sync: OwnedFd,
}

/// What a report says, in words of the clone's.
pub(crate) type Report = Result<Made, (String, i32)>;

impl Birth {
    /// Has a prepared process become the sandbox, or without one a clone of ours (the mock
    /// provider's). On failure nothing runs, but cgroups may be there.
    pub(crate) fn start(
        wanted: Wanted,
        prepared: Option<Prepared>,
        machine: &Machine,
        cgroups: &Cgroups,
    ) -> Outcome<Self> {
        let Wanted { n, order } = wanted;
        let confined = matches!(order.spec.root, Root::Overlay { .. });
        if confined == machine.unconfined || confined != prepared.is_some() {
            return Err(Failed { step: "make this kind of sandbox", errno: libc::EINVAL });
        }
        let id = order.spec.id.clone();
        match prepared {
            Some(prepared) => {
                prepared.order(&order)?;
                let Prepared { number, pid, sync } = prepared;
                let birth = Self { n, id, slot: Some(number), pid, sync };
                let confined = birth.confine(&order, machine.base(number), cgroups);
                birth.or_kill(confined)
            }
            None => Self::fork(n, id, order, cgroups),
        }
    }

    /// Makes cgroups with their limits around a prepared process, and lets it go on.
    fn confine(&self, order: &Order, owner: u32, cgroups: &Cgroups) -> Outcome<()> {
        let v2 = cgroups.make_v2(&self.id, owner)?;
        cgroups.make_limits(&order.spec, v2.as_ref())?;
        let oom_events = cgroups.oom_events(&self.id);
        cgroups.enter(&self.id, self.pid)?;
        go_on(&self.sync, v2.as_ref(), oom_events.as_ref())
    }

    /// A process like any other, born in its cgroup.
    fn fork(n: u64, id: String, order: Order, cgroups: &Cgroups) -> Outcome<Self> {
        let v2 = cgroups.make_v2(&id, 0)?;
        let (sync, far) = line()?;
        let leaf = v2.as_ref().map(|dir| Cgroups::leaf(dir, AGENT)).transpose();
        let leaf = leaf.step("make its cgroup")?;
        let pid = match sys::fork(0, leaf.as_ref()).step("clone it")? {
            Side::Parent(pid) => pid,
            Side::Child => inside::live_unconfined(order, far),
        };
        let birth = Self { n, id, slot: None, pid, sync };
        let told = go_on(&birth.sync, v2.as_ref(), None);
        birth.or_kill(told)
    }

    fn or_kill(self, done: Outcome<()>) -> Outcome<Self> {
        match done {
            Ok(()) => Ok(self),
            Err(failed) => {
                self.kill();
                Err(failed)
            }
        }
    }

    pub(crate) fn kill(&self) {
        sys::kill(self.pid);
    }

    /// Reads the report.
    pub(crate) fn report(&self) -> Report {
        let mut bytes = [0; REPORT];
        let got = recv(&self.sync, &mut bytes[..], RecvFlags::DONTWAIT).map_or(0, |(_, n)| n);
        let Some((errno, step)) = bytes[..got].split_first_chunk::<4>() else {
            return Err(("start".into(), libc::ECHILD));
        };
        match i32::from_ne_bytes(*errno) {
            0 => self.made().map_err(|f| (f.step.into(), f.errno)),
            errno => Err((String::from_utf8_lossy(step).into_owned(), errno)),
        }
    }

    fn made(&self) -> Outcome<Made> {
        let step = "look at its process";
        let path = format!("/proc/{}/stat", self.pid);
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).step(step)?;
        let mut bytes = [0; STAT];
        let got = rustix::io::read(file, &mut bytes).step(step)?;
        let stat = String::from_utf8_lossy(&bytes[..got]);
        // The name in parentheses may hold anything; field 3 follows the last of them.
        let start_time =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        let start_time = start_time.and_then(|t| t.parse().ok());
        let start_time = start_time.ok_or(Failed { step, errno: libc::ESRCH })?;
        Ok(Made { pid: self.pid, start_time, slot: self.slot })
    }
}

impl AsFd for Birth {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sync.as_fd()
    }
}
