//! All of a sandbox that needs no order, made beforehand: a process in namespaces of its own, with
//! a `/proc` and a `/dev`, which waits to hear what it is to be.
//!
//! It runs nothing but our own code until then, and goes when the spawner does.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use crate::datagram;
use crate::inside::{self, Order};
use crate::machine::Machine;
use crate::namespaces::Slot;
use crate::step::{Failed, Outcome, Step};
use crate::sys::{self, Side};

/// Namespaces that the spawner's own user namespace keeps: root of the sandbox's has no say in them.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The spawner's side of it.
pub(crate) struct Prepared {
    /// Its slot.
    pub number: u32,
    pub pid: i32,
    /// The line to it; when it closes, the process ends.
    pub sync: OwnedFd,
}

/// A pair for the line between the spawner and a clone.
pub(crate) fn line() -> Outcome<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make a line to it")
}

impl Prepared {
    pub(crate) fn start(slot: Slot, machine: &Machine) -> Outcome<Self> {
        let (sync, far) = line()?;
        match sys::fork(NAMESPACES, None).step("clone it")? {
            Side::Child => inside::wait(machine, &slot, far),
            Side::Parent(pid) => Ok(Self { number: slot.number, pid, sync }),
        }
    }

    /// Whether it still waits. Somebody on the host may have killed it.
    pub(crate) fn waits(&self) -> bool {
        let seen = recv(&self.sync, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(seen, Err(Errno::AGAIN))
    }

    /// Tells it what to be.
    pub(crate) fn order(&self, order: &Order) -> Outcome<()> {
        let step = "order it";
        let text =
            serde_json::to_vec(&order.spec).map_err(|_| Failed { step, errno: libc::EINVAL })?;
        let fds = [Some(&order.listener), order.tied.as_ref()].into_iter().flatten();
        let fds: Vec<_> = fds.map(AsFd::as_fd).collect();
        datagram::send(&self.sync, &text, &fds).step(step)
    }

    /// Lets one go that nobody needs; once its process has been waited for, it holds no mount any
    /// more.
    pub(crate) fn end(self) -> i32 {
        self.pid
    }
}

/// Tells a clone that its limits hold; with what it needs of its cgroups.
pub(crate) fn go_on(
    sync: &OwnedFd,
    v2: Option<&OwnedFd>,
    oom_events: Option<&OwnedFd>,
) -> Outcome<()> {
    let flags = u8::from(v2.is_some()) | u8::from(oom_events.is_some()) << 1;
    let fds: Vec<_> = v2.into_iter().chain(oom_events).map(AsFd::as_fd).collect();
    datagram::send(sync, &[flags], &fds).step("tell it to go on")
}

/// The clone's side of [`go_on`]; `None`: the spawner could not set the limits, or has gone.
pub(crate) fn may_go_on(sync: &OwnedFd) -> Option<(Option<OwnedFd>, Option<OwnedFd>)> {
    let mut flags = [0];
    let (got, fds) = datagram::receive(sync, &mut flags, RecvFlags::empty()).ok()?;
    let mut fds = fds.into_iter();
    (got == 1).then(|| {
        let v2 = if flags[0] & 1 != 0 { fds.next() } else { None };
        let oom_events = if flags[0] & 2 != 0 { fds.next() } else { None };
        (v2, oom_events)
    })
}

/// The clone's word on how it went: four bytes of error number, zero if all is well, and the step.
pub(crate) fn tell(sync: &OwnedFd, failed: Option<Failed>) {
    let Failed { step, errno } = failed.unwrap_or(Failed { step: "", errno: 0 });
    let message = [&errno.to_ne_bytes()[..], step.as_bytes()].concat();
    let _ = send(sync, &message, SendFlags::NOSIGNAL); // nobody is left to tell
}
