//! From the clone's first instruction to the agent's first: what a sandbox is made of.

mod lockdown;
mod rootfs;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use protocol::spawner::{MAX_MESSAGE, Root, SpawnSpec};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{RecvFlags, recv};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::cgroups::AGENT;
use crate::datagram;
use crate::machine::Machine;
use crate::namespaces::Slot;
use crate::prepared::{may_go_on, tell};
use crate::step::{Failed, Outcome, Step};
use crate::sys;

/// Commands are this much likelier to be picked by the kernel when memory runs out.
const OOM_SCORE_ADJ: i32 = 500;

/// What a clone is to be, with the descriptors that come along.
pub(crate) struct Order {
    pub spec: Box<SpawnSpec>,
    pub listener: OwnedFd,
    /// Its end ends the sandbox.
    pub tied: Option<OwnedFd>,
}

/// What is left of the making: the agent's root, its cgroup on v2, its count of OOM kills.
struct Ready {
    root: OwnedFd,
    cgroup: Option<OwnedFd>,
    oom_events: Option<OwnedFd>,
}

/// Prepares what needs no order, waits for one, makes the sandbox around this process and becomes
/// its agent.
pub(crate) fn wait(machine: &Machine, slot: &Slot, sync: OwnedFd) -> ! {
    sys::close_all_but(&[&slot.user, &slot.net, &sync].map(AsRawFd::as_raw_fd));
    let prepared = prepare(machine, slot);
    let Some(order) = Order::receive(&sync) else { sys::exit(0) };
    let ready = prepared.and_then(|()| make(&order.spec, machine, slot, &sync));
    become_agent(order, ready, &sync)
}

/// The mock provider's: a process like any other, with a folder for a root.
pub(crate) fn live_unconfined(order: Order, sync: OwnedFd) -> ! {
    agent::settle_signals();
    let ready = make_unconfined(&order.spec, &sync);
    become_agent(order, ready, &sync)
}

impl Order {
    /// Blocks; `None` if the spawner has gone, or says what nobody understands.
    fn receive(sync: &OwnedFd) -> Option<Self> {
        // As long as it is: each page of this process is its own, for as long as the sandbox lives.
        let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, len) = rustix::io::retry_on_intr(|| recv(sync, &mut [0; 0][..], peek)).ok()?;
        let mut text = vec![0; len.min(MAX_MESSAGE)];
        let (got, fds) = datagram::receive(sync, &mut text, RecvFlags::empty()).ok()?;
        let spec = serde_json::from_slice(&text[..got]).ok()?;
        let mut fds = fds.into_iter();
        Some(Self { spec, listener: fds.next()?, tied: fds.next() })
    }
}

fn prepare(machine: &Machine, slot: &Slot) -> Outcome<()> {
    machine.warm.fault_in();
    agent::settle_signals();
    move_into_link_name_space(slot.net.as_fd(), Some(LinkNameSpaceType::Network))
        .step("enter its network namespace")?;
    sys::loopback_up().step("set the loopback up")?;
    rootfs::prepare(machine, slot)
}

fn make(spec: &SpawnSpec, machine: &Machine, slot: &Slot, sync: &OwnedFd) -> Outcome<Ready> {
    sys::set_hostname(&spec.hostname).step("set its hostname")?;
    rootfs::build(spec, machine, slot)?;
    let (cgroup, oom_events) = wait_for_limits(sync);
    enter_leaf(cgroup.as_ref()).step("enter its cgroup")?;
    lockdown::enter(machine, &slot.user)?;
    Ok(Ready { root: open_root("/")?, cgroup, oom_events })
}

fn make_unconfined(spec: &SpawnSpec, sync: &OwnedFd) -> Outcome<Ready> {
    let Root::Directory { path } = &spec.root else {
        return Err(Failed { step: "find its root", errno: libc::EINVAL });
    };
    rustix::process::setsid().step("leave its session")?;
    let (cgroup, oom_events) = wait_for_limits(sync);
    Ok(Ready { root: open_root(path)?, cgroup, oom_events })
}

fn become_agent(order: Order, ready: Outcome<Ready>, sync: &OwnedFd) -> ! {
    let Ready { root, cgroup, oom_events } = match ready {
        Ok(ready) => ready,
        Err(failed) => {
            tell(sync, Some(failed));
            sys::exit(1)
        }
    };
    tell(sync, None);
    let Order { spec, listener, tied } = order;
    let kept = [Some(&root), Some(&listener), tied.as_ref(), cgroup.as_ref(), oom_events.as_ref()];
    let kept: Vec<RawFd> = kept.into_iter().flatten().map(AsRawFd::as_raw_fd).collect();
    sys::close_all_but(&kept);
    sys::exit(agent::serve(agent::Config {
        sandbox_id: spec.id,
        listener,
        root,
        root_prefix: String::new(),
        env: spec.env,
        user: spec.user,
        workdir: spec.workdir,
        deadline_boot_nanos: spec.deadline_boot_nanos,
        cgroup,
        oom_events,
        tied_to: tied,
        oom_score_adj: OOM_SCORE_ADJ,
        limits: spec.limits,
    }))
}

fn open_root(path: &str) -> Outcome<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).step("open its root")
}

/// From here on `/` of the cgroup file systems is the sandbox's own; the agent goes to its leaf.
fn enter_leaf(v2: Option<&OwnedFd>) -> sys::Sys<()> {
    // SAFETY: this process has one thread and shares no memory, so nobody else sees it change.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
    if let Some(dir) = v2 {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = openat(dir, format!("{AGENT}/cgroup.procs"), flags, Mode::empty())?;
        rustix::io::write(procs, b"0")?;
    }
    Ok(())
}

/// Blocks until the spawner has set the limits; it closes the line if it can't.
fn wait_for_limits(sync: &OwnedFd) -> (Option<OwnedFd>, Option<OwnedFd>) {
    match may_go_on(sync) {
        Some(fds) => fds,
        None => sys::exit(1),
    }
}
