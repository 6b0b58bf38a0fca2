//! The system calls that rustix does not wrap.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

pub(crate) type Sys<T> = Result<T, Errno>;

fn checked(result: libc::c_long) -> Sys<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// What a clone becomes.
pub(crate) enum Side {
    Child,
    Parent(i32),
}

/// `struct clone_args`, up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `struct clone_args.flags`, above what `clone` takes.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into new namespaces, and into a cgroup v2 directory. The child has a copy of our memory.
pub(crate) fn fork(namespaces: libc::c_int, cgroup: Option<&OwnedFd>) -> Sys<Side> {
    let mut args = CloneArgs {
        flags: namespaces as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork. The process has one thread, so that no lock is held
    // by another in the child's copy; the structure lives through the call and has its true size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    Ok(match checked(pid)? {
        0 => Side::Child,
        pid => Side::Parent(pid as i32),
    })
}

/// A process in new namespaces that shares our memory, runs on `stack` and waits to be killed. It
/// goes when we do. The stack may be used again once it has been waited for.
pub(crate) fn idle_process(
    namespaces: libc::c_int,
    stack: &mut [std::mem::MaybeUninit<u8>],
) -> Sys<i32> {
    extern "C" fn wait(parent: *mut libc::c_void) -> libc::c_int {
        // SAFETY: system calls with plain numbers and null pointers, which succeed or do not
        // return: nothing of the memory that is shared is written but this stack.
        unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            if libc::syscall(libc::SYS_getppid) == parent as libc::c_long {
                loop {
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            }
            libc::syscall(libc::SYS_exit_group, 0);
        }
        0
    }
    let top = stack.as_mut_ptr_range().end as usize & !15;
    let flags = namespaces | libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is exclusively ours, and the caller keeps it until the process is gone; the
    // function obeys what sharing memory with a running process asks for.
    let pid = unsafe {
        let parent = libc::getpid() as usize as *mut libc::c_void;
        libc::clone(wait, top as *mut libc::c_void, flags, parent)
    };
    checked(pid.into()).map(|pid| pid as i32)
}

/// Ends this process without running what was registered for its end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

pub(crate) fn kill(pid: i32) {
    debug_assert!(pid > 1, "one process, never a group");
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Reaps one child that has ended.
pub(crate) fn reap() -> Option<i32> {
    // SAFETY: no status is asked for.
    let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    (pid > 0).then_some(pid)
}

/// Waits until a child has ended, unless it was reaped before.
pub(crate) fn wait_for(pid: i32) {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
}

/// Blocks SIGCHLD and returns a descriptor that tells of it.
pub(crate) fn child_signals() -> Sys<OwnedFd> {
    // SAFETY: the set is plain data, initialised by sigemptyset; the descriptor is new.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        Ok(OwnedFd::from_raw_fd(checked(fd.into())? as RawFd))
    }
}

/// Faults pages in, for writing with copies of their own. Kernels that can't do it leave it undone.
pub(crate) fn populate(range: &std::ops::Range<usize>, write: bool) {
    let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    // SAFETY: the content of no page changes.
    unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), advice) };
}

/// What a mount may not be used for.
pub(crate) const RDONLY: u64 = 0x1;
pub(crate) const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
pub(crate) const NOEXEC: u64 = 0x8;
const IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets attributes of a mount, and of those below it.
pub(crate) fn restrict(mount: impl AsFd, set: u64, recursive: bool) -> Sys<()> {
    let attr = MountAttr { set, ..MountAttr::default() };
    mount_setattr(mount, &attr, recursive)
}

/// Shows the ids of a mount's files as the user namespace maps them. The mount must be new.
pub(crate) fn map_ids(mount: impl AsFd, userns: &OwnedFd) -> Sys<()> {
    let userns = userns.as_raw_fd() as u64;
    mount_setattr(mount, &MountAttr { set: IDMAP, userns, ..MountAttr::default() }, false)
}

fn mount_setattr(mount: impl AsFd, attr: &MountAttr, recursive: bool) -> Sys<()> {
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path and a structure of its true size, both alive through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    checked(done).map(drop)
}

/// Loads a seccomp filter for this process and all it will start.
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> Sys<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which live through the call, and writes none.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    checked(done).map(drop)
}

/// By number, as the kernel may know capabilities that we don't.
pub(crate) fn drop_from_bounding_set(capability: u32) -> Sys<()> {
    let number = libc::c_ulong::from(capability);
    // SAFETY: plain numbers.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into()).map(drop)
}

/// Sets both limits of a resource.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Sys<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads a valid structure.
    checked(unsafe { libc::setrlimit(resource, &limit) }.into()).map(drop)
}

pub(crate) fn hard_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes into a valid structure.
    unsafe { libc::getrlimit(resource, &mut limit) };
    limit.rlim_max
}

pub(crate) fn set_hostname(name: &str) -> Sys<()> {
    // SAFETY: a pointer and its length.
    checked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Sets the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> Sys<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid; its name is terminated; the ioctl reads it only.
    let done = unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request)
    };
    checked(done.into()).map(drop)
}

/// Closes every descriptor but 0 to 2 and these.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: the descriptors in between belong to values that are never used again: the
            // caller is a fresh fork that runs on with the kept ones only.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = from.max(fd.saturating_add(1));
    }
}

/// Puts one mount on another, or on a directory or file, by descriptors alone.
pub(crate) fn attach(mount: impl AsFd, place: impl AsFd) -> Sys<()> {
    use rustix::mount::MoveMountFlags;
    let by_descriptor =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    const EMPTY: &CStr = c"";
    rustix::mount::move_mount(mount, EMPTY, place, EMPTY, by_descriptor)
}
