//! The few system calls that rustix does not wrap, and the process-wide settings made at start.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use types::clock::{Clock, SystemClock};

/// The last real-time signal.
const MAX_SIGNAL: libc::c_int = 64;

/// Nanoseconds of CLOCK_BOOTTIME.
pub(crate) fn now() -> u64 {
    SystemClock.boot().nanos()
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Makes sure that 0, 1 and 2 are open, so that no descriptor of ours ever gets such a number: a
/// command's standard streams are put there.
pub(crate) fn occupy_standard_streams() {
    for fd in 0..3 {
        // SAFETY: F_GETFD only asks whether the descriptor is open.
        let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if !open && let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
            std::mem::forget(null);
        }
    }
}

/// Blocks every signal for good and gives commands the default dispositions to inherit. PID 1 has
/// nothing to be told by signals but SIGCHLD, which is read from the returned descriptor.
pub(crate) fn signals() -> Result<OwnedFd, Errno> {
    // The kernel's own layout, zero: default. By the call itself, since libc keeps two real-time
    // signals to itself, and launchers leave those ignored.
    let default = [0u64; 4];
    for signal in 1..=MAX_SIGNAL {
        // SAFETY: a readable action of the kernel's size; for SIGKILL and SIGSTOP it fails, rightly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, 8) };
    }
    // SAFETY: the sets are plain data, initialised by sigfillset and sigemptyset before use.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        let mut chld = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut chld);
        libc::sigaddset(&mut chld, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &chld, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(last()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Names this process, for lists of processes.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// With `false`, nobody inside can trace this process or read its memory and descriptors.
pub(crate) fn set_dumpable(on: bool) {
    // SAFETY: PR_SET_DUMPABLE takes a number.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on), 0, 0, 0) };
}

/// Orphans below this process become its children.
pub(crate) fn become_subreaper() {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a number.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong, 0, 0, 0) };
}

/// Sends a signal to a process, or with a negative pid to a process group.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    debug_assert!(pid != 0 && pid != -1, "never to ourselves, never to all");
    // SAFETY: plain numbers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(last()) }
}

/// Opens both ends of a new terminal, without echo or translation. The far end stays open, so
/// that the near one does not hang up when the last program closes it.
pub(crate) fn open_pty() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (near, far) = open_terminal()?;
    // SAFETY: tcgetattr and tcsetattr get a valid termios.
    unsafe {
        let mut mode = std::mem::zeroed::<libc::termios>();
        if libc::tcgetattr(far.as_raw_fd(), &mut mode) == 0 {
            libc::cfmakeraw(&mut mode);
            libc::tcsetattr(far.as_raw_fd(), libc::TCSANOW, &mode);
        }
    }
    Ok((near, far))
}

/// Opens both ends of a new terminal as programs expect to find one. The near end does not block.
pub(crate) fn open_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let near = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, TIOCGPTPEER takes open flags and returns a descriptor that
    // nobody else owns.
    unsafe {
        if libc::ioctl(near.as_raw_fd(), libc::TIOCSPTLCK, &unlock) < 0 {
            return Err(last());
        }
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let far = libc::ioctl(near.as_raw_fd(), libc::TIOCGPTPEER, flags);
        if far < 0 {
            return Err(last());
        }
        Ok((near, OwnedFd::from_raw_fd(far)))
    }
}

/// Sets the size of a terminal; the kernel tells its foreground group.
pub(crate) fn resize(terminal: &OwnedFd, cols: u16, rows: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    if set == 0 { Ok(()) } else { Err(last()) }
}

/// The foreground group of a terminal, asked at its near end.
pub(crate) fn foreground(terminal: &OwnedFd) -> Option<i32> {
    let mut group: libc::pid_t = 0;
    // SAFETY: TIOCGPGRP writes a process id.
    let got = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGPGRP, &mut group) };
    (got == 0 && group > 1).then_some(group)
}

/// Hands freed memory back to the kernel.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// `fchmodat2` on a descriptor opened with O_PATH, which plain fchmod refuses.
pub(crate) fn chmod_by_fd(fd: &OwnedFd, mode: u32) -> Result<(), Errno> {
    /// The same number on every architecture; libc does not name it on all.
    const FCHMODAT2: libc::c_long = 452;
    // SAFETY: a valid descriptor, an empty NUL-terminated path, plain numbers.
    let r = unsafe {
        libc::syscall(FCHMODAT2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH)
    };
    if r == 0 { Ok(()) } else { Err(last()) }
}
