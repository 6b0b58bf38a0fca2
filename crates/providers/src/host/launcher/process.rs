//! Starts the program with nothing of ours but one end of a socket pair.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};

use super::program::Program;

/// What PID 1 of a sandbox is called, inside and out.
const NAME: &str = "stacyvm-agent";
/// Where the spawner finds its socket.
pub(super) const SOCKET_FD: RawFd = 3;

pub(super) fn start(program: &Program) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Occupies descriptor 3, if it was free, so that nothing std opens for the start lies there.
    let placeholder = fcntl_dupfd_cloexec(&theirs, SOCKET_FD)?;
    let socket = theirs.as_raw_fd();
    let mut command = std::process::Command::new(program.path());
    command
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0); // a Ctrl-C at our terminal is not for it
    // SAFETY: between fork and exec `leave_all_but` makes async-signal-safe system calls only, and
    // allocates nothing; `socket` is open in the child, whose descriptors are a copy of ours.
    unsafe { command.pre_exec(move || leave_all_but(socket)) };
    let child = Command::from(command).spawn()?;
    drop((theirs, placeholder));
    Ok((child, ours))
}

/// Puts the socket at its place and has exec close everything above it.
fn leave_all_but(socket: RawFd) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    if socket == SOCKET_FD {
        // SAFETY: a plain system call on a descriptor number.
        check(unsafe { libc::fcntl(socket, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: a plain system call; what lay at 3 is the placeholder or was not for the child.
        check(unsafe { libc::dup2(socket, SOCKET_FD) })?;
    }
    // Kernels before 5.11 can't; everything of ours is close-on-exec anyway.
    // SAFETY: marks descriptors, closes none before exec.
    let _ = unsafe {
        libc::syscall(libc::SYS_close_range, SOCKET_FD + 1, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    Ok(())
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
