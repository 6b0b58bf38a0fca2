//! From the clone's first instruction to the agent's first: what a sandbox is made of.

mod lockdown;
mod rootfs;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use protocol::spawner::{Root, SpawnSpec};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::cgroups::{AGENT, Cgroups};
use crate::machine::Machine;
use crate::slots::Slot;
use crate::step::{Failed, Outcome, Step};
use crate::sys;

/// Commands are this much likelier to be picked by the kernel when memory runs out.
const OOM_SCORE_ADJ: i32 = 500;

/// What a clone is given.
pub(crate) struct Inside<'a> {
    pub spec: &'a SpawnSpec,
    pub machine: &'a Machine,
    pub cgroups: &'a Cgroups,
    pub slot: Option<&'a Slot>,
    pub listener: OwnedFd,
    pub tied: Option<OwnedFd>,
    /// The sandbox's directory on v2.
    pub v2: Option<OwnedFd>,
    /// Our end of the line to the spawner.
    pub sync: OwnedFd,
}

/// Makes the sandbox around this process and becomes its agent.
pub(crate) fn live(inside: Inside<'_>) -> ! {
    leave(
        &inside,
        inside
            .slot
            .iter()
            .flat_map(|slot| [&slot.user, &slot.net])
            .chain([&inside.sync])
            .chain(inside.cgroups.fds()),
    );
    let made = match &inside.spec.root {
        Root::Directory { path } => make_unconfined(&inside, path),
        Root::Overlay { .. } => make(&inside),
    };
    let (root, oom_events) = match made {
        Ok(made) => made,
        Err(failed) => {
            tell(&inside.sync, Some(failed));
            sys::exit(1)
        }
    };
    tell(&inside.sync, None);
    leave(&inside, [&root].into_iter().chain(&oom_events));
    let spec = inside.spec;
    let cgroup = inside.v2;
    sys::exit(agent::serve(agent::Config {
        sandbox_id: spec.id.clone(),
        listener: inside.listener,
        root,
        root_prefix: String::new(),
        env: spec.env.clone(),
        user: spec.user.clone(),
        workdir: spec.workdir.clone(),
        deadline_boot_nanos: spec.deadline_boot_nanos,
        cgroup,
        oom_events,
        tied_to: inside.tied,
        oom_score_adj: OOM_SCORE_ADJ,
        limits: spec.limits.clone(),
    }))
}

/// Closes every descriptor but the agent's and these.
fn leave<'a>(inside: &'a Inside<'_>, and: impl Iterator<Item = &'a OwnedFd>) {
    let agents = [Some(&inside.listener), inside.tied.as_ref(), inside.v2.as_ref()];
    let keep: Vec<RawFd> =
        agents.into_iter().flatten().chain(and).map(AsRawFd::as_raw_fd).collect();
    sys::close_all_but(&keep);
}

type Made = (OwnedFd, Option<OwnedFd>);

fn make(inside: &Inside<'_>) -> Outcome<Made> {
    let spec = inside.spec;
    let slot = inside.slot.ok_or(Failed { step: "find its namespaces", errno: libc::EINVAL })?;
    move_into_link_name_space(slot.net.as_fd(), Some(LinkNameSpaceType::Network))
        .step("enter its network namespace")?;
    sys::set_hostname(&spec.hostname).step("set its hostname")?;
    rootfs::build(spec, inside.machine, slot)?;
    wait_for_limits(&inside.sync)?;
    enter_leaf(inside.v2.as_ref()).step("enter its cgroup")?;
    let oom_events = inside.cgroups.oom_events(&spec.id);
    lockdown::enter(inside.machine, &slot.user)?;
    Ok((open_root("/")?, oom_events))
}

/// The mock provider's: a process like any other, with a folder for a root.
fn make_unconfined(inside: &Inside<'_>, path: &str) -> Outcome<Made> {
    rustix::process::setsid().step("leave its session")?;
    wait_for_limits(&inside.sync)?;
    Ok((open_root(path)?, None))
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
fn wait_for_limits(sync: &OwnedFd) -> Outcome<()> {
    match recv(sync, &mut [0; 1][..], RecvFlags::empty()) {
        Ok((_, 1)) => Ok(()),
        Ok(_) | Err(_) => sys::exit(1),
    }
}

/// Reports to the spawner: four bytes of error number, zero if all is well, and the step.
fn tell(sync: &OwnedFd, failed: Option<Failed>) {
    let Failed { step, errno } = failed.unwrap_or(Failed { step: "", errno: 0 });
    let message = [&errno.to_ne_bytes()[..], step.as_bytes()].concat();
    let _ = send(sync, &message, SendFlags::NOSIGNAL); // nobody is left to tell
}
