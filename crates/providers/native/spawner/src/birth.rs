//! The spawner's side of a sandbox's making: clone, limits, and the report from inside.
//!
//! The clone builds its file system while we make its cgroups; it goes on to become root of its
//! user namespace only when it has been told that the limits hold.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::spawner::{Made, Root, SpawnSpec};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use crate::cgroups::{AGENT, Cgroups};
use crate::inside::{self, Inside};
use crate::machine::Machine;
use crate::slots::Slot;
use crate::step::{Failed, Outcome, Step};
use crate::sys::{self, Side};

/// Namespaces that the spawner's own user namespace keeps: root of the sandbox's has no say in them.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
/// A report: an error number and a step.
const REPORT: usize = 256;
/// More than a line of /proc/PID/stat.
const STAT: usize = 1024;

/// A sandbox to make, with the descriptors that came along.
pub(crate) struct Wanted {
    /// The number of the order.
    pub n: u64,
    pub spec: Box<SpawnSpec>,
    pub listener: OwnedFd,
    pub tied: Option<OwnedFd>,
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
    /// Clones. On failure nothing runs, but cgroups may be there.
    pub(crate) fn start(
        wanted: Wanted,
        slot: Option<Slot>,
        machine: &Machine,
        cgroups: &Cgroups,
    ) -> Outcome<Self> {
        let spec = &*wanted.spec;
        let confined = matches!(spec.root, Root::Overlay { .. });
        if confined == machine.unconfined || confined != slot.is_some() {
            return Err(Failed { step: "make this kind of sandbox", errno: libc::EINVAL });
        }
        let owner = slot.as_ref().map_or(0, |slot| machine.base(slot.number));
        let v2 = cgroups.make_v2(&spec.id, owner)?;
        let (sync, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("make a line to it")?;
        // Only inside its cgroup namespace's root may a process be moved; so the confined one is
        // born above its leaf, and goes there when it has such a namespace.
        let leaf = match &v2 {
            Some(dir) if !confined => Some(Cgroups::leaf(dir, AGENT).step("make its cgroup")?),
            _ => None,
        };
        let birthplace = leaf.as_ref().or(v2.as_ref());
        let namespaces = if confined { NAMESPACES } else { 0 };
        let pid = match sys::fork(namespaces, birthplace).step("clone it")? {
            Side::Parent(pid) => pid,
            Side::Child => inside::live(Inside {
                spec,
                machine,
                cgroups,
                slot: slot.as_ref(),
                listener: wanted.listener,
                tied: wanted.tied,
                v2,
                sync: far,
            }),
        };
        let birth = Self {
            n: wanted.n,
            id: spec.id.clone(),
            slot: slot.map(|slot| slot.number),
            pid,
            sync,
        };
        match birth.limit(spec, cgroups, v2.as_ref()) {
            Ok(()) => Ok(birth),
            Err(failed) => {
                birth.kill();
                Err(failed)
            }
        }
    }

    fn limit(&self, spec: &SpawnSpec, cgroups: &Cgroups, v2: Option<&OwnedFd>) -> Outcome<()> {
        cgroups.make_limits(spec, v2)?;
        cgroups.enter_v1(&self.id, self.pid)?;
        send(&self.sync, &[1], SendFlags::NOSIGNAL).map(drop).step("tell it to go on")
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
