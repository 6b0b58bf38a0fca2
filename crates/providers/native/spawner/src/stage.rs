//! The spawner's own root: a small read-only tmpfs with a short mount table, since every sandbox
//! starts with a copy of that table.
//!
//! ```text
//! /layers      image layers, read-only         /dev     a prepared one, read-only
//! /disk        the disk store, if there is one /proc    the host's, to read and to cover from
//! /host/usr …  the host's programs, read-only  /empty   nothing, read-only
//! /stage/{layers,up,root,proc,dev}             where a sandbox's root file system comes together
//! ```

use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::spawner::{HOST_PROGRAMS, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, open, openat, symlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, open_tree,
    unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::step::{Outcome, Step};
use crate::sys;

pub(crate) const HERE: &str = "/stage";

/// The device nodes that a sandbox gets, with their numbers.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    // The agent takes the first terminal and reads what is written here.
    ("console", "pts/0"),
];

/// Moves this process into its own mount namespace and root. `own_ids`: as real root.
pub(crate) fn enter(setup: &Setup, own_ids: bool) -> Outcome<()> {
    if !own_ids {
        become_root_of_a_user_namespace()?;
    }
    // SAFETY: this process has one thread and shares no memory, so nobody else sees it change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.step("make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("make the mounts private")?;
    let parts = take_parts(setup)?;
    let nodes = if own_ids { Vec::new() } else { take_nodes()? };

    // The folder with the layers is sure to exist; inside the new root nothing is left of it.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", setup.layers_dir.as_str(), "tmpfs", flags, c"mode=755,size=64k")
        .step("mount a root of its own")?;
    chdir(setup.layers_dir.as_str()).step("enter the new root")?;
    for dir in [
        "layers",
        "disk",
        "host",
        "dev",
        "proc",
        "empty",
        "stage",
        "stage/layers",
        "stage/up",
        "stage/root",
        "stage/proc",
        "stage/dev",
    ] {
        mkdirat(CWD, dir, Mode::from_raw_mode(0o755)).step("lay out the new root")?;
    }
    for (place, tree) in &parts {
        if place.starts_with("host/") {
            mkdirat(CWD, place.as_str(), Mode::from_raw_mode(0o755))
                .step("lay out the new root")?;
        }
        let place = open(place.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        sys::attach(tree, place.step("find a place")?).step("put a mount in its place")?;
    }
    prepare_dev(&nodes).step("prepare /dev")?;
    mount(
        "tmpfs",
        "empty",
        "tmpfs",
        flags | MountFlags::RDONLY | MountFlags::NOEXEC,
        c"mode=755,size=4k",
    )
    .step("mount the empty folder")?;

    pivot_root(".", ".").step("enter the new root")?;
    unmount(".", UnmountFlags::DETACH).step("leave the old root")?;
    chdir("/").step("enter the new root")?;
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open the root")?;
    sys::restrict(&root, sys::RDONLY, false).step("make the root read-only")
}

/// Detached copies of what the new root shows, by place.
fn take_parts(setup: &Setup) -> Outcome<Vec<(String, OwnedFd)>> {
    let mut parts = Vec::new();
    let plain = sys::NODEV | sys::NOSUID;
    parts.push(("layers".into(), take(&setup.layers_dir, plain | sys::RDONLY, false)?));
    if let Some(disk) = &setup.disk_dir {
        parts.push(("disk".into(), take(disk, plain, false)?));
    }
    for name in HOST_PROGRAMS {
        let path = format!("/{name}");
        if Path::new(&path).symlink_metadata().is_ok_and(|m| m.is_dir()) {
            parts.push((format!("host/{name}"), take(&path, plain | sys::RDONLY, true)?));
        }
    }
    // With all that is mounted on it: the kernel lets an ordinary user mount a procfs only where
    // one is seen that hides nothing.
    parts.push(("proc".into(), take("/proc", 0, true)?));
    Ok(parts)
}

fn take(path: &str, restrict: u64, recursive: bool) -> Outcome<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below;
    let tree = open_tree(CWD, path, flags).step("open what the host provides")?;
    if restrict != 0 {
        sys::restrict(&tree, restrict, recursive).step("restrict what the host provides")?;
    }
    Ok(tree)
}

/// The host's device nodes, for those who can't make any.
fn take_nodes() -> Outcome<Vec<OwnedFd>> {
    NODES.iter().map(|(name, ..)| take(&format!("/dev/{name}"), 0, false)).collect()
}

/// A tmpfs with what every sandbox finds in /dev; `pts` and `shm` are mounted per sandbox.
fn prepare_dev(nodes: &[OwnedFd]) -> sys::Sys<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "dev", "tmpfs", flags, c"mode=755,size=64k")?;
    let dev = open("dev", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for (n, (name, major, minor)) in NODES.iter().enumerate() {
        let mode = Mode::from_raw_mode(0o666);
        match nodes.get(n) {
            None => {
                mknodat(&dev, *name, FileType::CharacterDevice, mode, makedev(*major, *minor))?;
                rustix::fs::chmodat(&dev, *name, mode, rustix::fs::AtFlags::empty())?;
            }
            Some(node) => {
                let place = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                sys::attach(node, openat(&dev, *name, place, mode)?)?;
            }
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name)?;
    }
    for dir in ["pts", "shm"] {
        mkdirat(&dev, dir, Mode::from_raw_mode(0o755))?;
    }
    let mounted = open("dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    sys::restrict(&mounted, sys::RDONLY, false)
}

/// An ordinary user: all that follows happens in a user namespace in which it is root.
fn become_root_of_a_user_namespace() -> Outcome<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as in `enter`.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.step("make a user namespace")?;
    std::fs::write("/proc/self/setgroups", "deny").step("map the user")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).step("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).step("map the group")
}
