//! A sandbox's root file system, put together on the stage and pivoted into. What is the same for
//! every sandbox is mounted beforehand, beside the place of the root, and then moved.
//!
//! Names are relative to the stage wherever the mount table shows them, so that what is visible
//! inside tells nothing of the host.

use std::os::fd::OwnedFd;

use protocol::spawner::{Root, SpawnSpec, Upper};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chownat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_remount, open_tree, unmount,
};
use rustix::process::{Gid, Uid, chdir, pivot_root};

use crate::machine::Machine;
use crate::namespaces::Slot;
use crate::stage;
use crate::step::{Failed, Outcome, Step};
use crate::sys::{self, Sys};

/// The group `tty` of every distribution; terminals belong to it.
const TTY: u32 = 5;
/// Shared memory, in bytes, at most.
const SHM: u64 = 64 << 20;

/// Mounts what does not depend on an order.
pub(super) fn prepare(machine: &Machine, slot: &Slot) -> Outcome<()> {
    chdir(stage::HERE).step("enter the stage")?;
    mount_proc(machine)?;
    mount_dev(machine.ids.is_some(), machine.base(slot.number))
}

/// The rest, on a stage that is prepared.
pub(super) fn build(spec: &SpawnSpec, machine: &Machine, slot: &Slot) -> Outcome<()> {
    let Root::Overlay { layers, binds, upper } = &spec.root else {
        return Err(Failed { step: "mount its root", errno: libc::EINVAL });
    };
    let own_ids = machine.ids.is_some();
    mount_layers(slot, own_ids)?;
    mount_upper(upper, machine.base(slot.number))?;
    mount_root(layers, own_ids).step("mount its root")?;
    let root = openat(CWD, "root", PLACE, Mode::empty()).step("open its root")?;
    resize_shm(spec).step("limit /dev/shm")?;
    for name in ["proc", "dev"] {
        move_in(name, &root).step("move /proc and /dev in")?;
    }
    for bind in binds {
        show(&root, bind, slot, own_ids)?;
    }
    chdir("root").step("enter its root")?;
    pivot_root(".", ".").step("enter its root")?;
    unmount(".", UnmountFlags::DETACH).step("leave the stage")?;
    chdir("/").step("enter its root")
}

/// Moves a prepared mount, with all that is mounted on it, into the root.
fn move_in(name: &str, root: &OwnedFd) -> Sys<()> {
    let mount = openat(CWD, name, PLACE, Mode::empty())?;
    sys::attach(&mount, place(root, name)?)
}

const PLACE: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The layers, with their files' owners as the sandbox's user namespace maps them.
fn mount_layers(slot: &Slot, own_ids: bool) -> Outcome<()> {
    if !own_ids {
        return mount_bind("/layers", "layers").step("mount the image's layers");
    }
    let layers = clone_tree("/layers", false).step("mount the image's layers")?;
    sys::map_ids(&layers, &slot.user).step("map the image's owners")?;
    let place = openat(CWD, "layers", PLACE, Mode::empty()).step("mount the image's layers")?;
    sys::attach(&layers, &place).step("mount the image's layers")
}

fn mount_upper(upper: &Upper, base: u32) -> Outcome<()> {
    let step = "mount its writable layer";
    let (uid, gid) = (Some(Uid::from_raw(base)), Some(Gid::from_raw(base)));
    match upper {
        Upper::Tmpfs { bytes, inodes } => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            let options = format!("mode=755,size={bytes},nr_inodes={inodes}");
            mount("tmpfs", "up", "tmpfs", flags, text(&options)?.as_c_str()).step(step)?;
            for dir in ["up/u", "up/w"] {
                mkdirat(CWD, dir, Mode::from_raw_mode(0o755)).step(step)?;
            }
        }
        Upper::Disk { name } => mount_bind(format!("/disk/{name}"), "up").step(step)?,
    }
    for dir in ["up/u", "up/w"] {
        chownat(CWD, dir, uid, gid, AtFlags::SYMLINK_NOFOLLOW).step("own its writable layer")?;
    }
    Ok(())
}

fn mount_root(layers: &[String], own_ids: bool) -> Sys<()> {
    let lower: Vec<String> = layers.iter().map(|name| format!("layers/{name}")).collect();
    // Nothing reads the writable layer after a crash of the host, so nothing waits for its disk.
    let mut options = format!("lowerdir={},upperdir=up/u,workdir=up/w,volatile", lower.join(":"));
    if !own_ids {
        options.push_str(",userxattr");
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", "root", "overlay", flags, options.as_c_str())
}

/// A procfs of the sandbox's own processes; what tells of the host is covered.
fn mount_proc(machine: &Machine) -> Outcome<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", flags, None).step("mount /proc")?;
    let cover = || -> Sys<()> {
        for name in &machine.covered_files {
            mount_bind("/dev/null", format!("proc/{name}"))?;
        }
        for name in &machine.covered_folders {
            mount_bind("/empty", format!("proc/{name}"))?;
        }
        let settings = clone_tree("proc/sys", false)?;
        sys::restrict(&settings, sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC, false)?;
        sys::attach(&settings, openat(CWD, "proc/sys", PLACE, Mode::empty())?)
    };
    cover().step("cover /proc")
}

/// The prepared /dev, with terminals and shared memory of the sandbox's own.
fn mount_dev(own_ids: bool, base: u32) -> Outcome<()> {
    match own_ids {
        true => mount_bind("/dev", "dev"),
        false => mount_bind_recursive("/dev", "dev"),
    }
    .step("mount /dev")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let mut options = "newinstance,ptmxmode=0666,mode=0620,max=1024".to_owned();
    if own_ids {
        options.push_str(&format!(",gid={}", base + TTY));
    }
    mount("devpts", "dev/pts", "devpts", flags, text(&options)?.as_c_str())
        .step("mount /dev/pts")?;
    let options = text(&format!("size={SHM},nr_inodes=16k,mode=1777"))?;
    mount("shm", "dev/shm", "tmpfs", flags | MountFlags::NODEV, options.as_c_str())
        .step("mount /dev/shm")
}

/// Shared memory is memory: a small sandbox gets no more than half of its own, else filling it
/// would leave the agent none.
fn resize_shm(spec: &SpawnSpec) -> Sys<()> {
    let half = spec.memory_bytes / 2;
    if spec.memory_bytes == 0 || half >= SHM {
        return Ok(());
    }
    let options = std::ffi::CString::new(format!("size={half}")).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount_remount("dev/shm", flags, options.as_c_str())
}

/// Shows a folder of the host's programs, read-only.
fn show(root: &OwnedFd, path: &str, slot: &Slot, own_ids: bool) -> Outcome<()> {
    let name = path.strip_prefix('/').filter(|name| !name.contains('/'));
    let name = name.ok_or(Failed { step: "show the host's programs", errno: libc::EINVAL })?;
    let step = "show the host's programs";
    let tree = clone_tree(&format!("/host/{name}"), true).step(step)?;
    if own_ids {
        match sys::map_ids(&tree, &slot.user) {
            // A file system that can't: its files seem to be nobody's, and can be read as well.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).step(step),
        }
    }
    sys::attach(&tree, place(root, name).step("find a place for the host's programs")?).step(step)
}

fn clone_tree(path: &str, recursive: bool) -> Sys<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags | below | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)
}

/// A directory in the root, to mount on. What an image has there instead, a link say, gives way:
/// following it would mount elsewhere.
fn place(root: &OwnedFd, name: &str) -> Sys<OwnedFd> {
    match openat(root, name, PLACE, Mode::empty()) {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(root, name, AtFlags::empty())?,
        opened => return opened,
    }
    mkdirat(root, name, Mode::from_raw_mode(0o755))?;
    openat(root, name, PLACE, Mode::empty())
}

fn text(options: &str) -> Outcome<std::ffi::CString> {
    std::ffi::CString::new(options)
        .map_err(|_| Failed { step: "read its options", errno: libc::EINVAL })
}
