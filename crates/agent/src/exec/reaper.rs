//! The process between the agent and a command where there is no cgroup: descendants that lose
//! their parents become its children, however they detached, and so can be found.
//!
//! It tells on a pipe, in numbers of four bytes: the command's pid (or minus an error), then its
//! wait status. It lives until its last child has gone.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::launch::Launch;
use crate::sys;

/// Forks the process. It starts the command of `launch` by itself.
pub(super) fn start(launch: &mut Launch, tell: &OwnedFd, oom: i32) -> Result<i32, Errno> {
    // SAFETY: the agent is single-threaded, so a forked child may do whatever the agent may.
    match unsafe { libc::fork() } {
        -1 => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
        }
        0 => live(launch, tell, oom),
        pid => Ok(pid),
    }
}

fn live(launch: &mut Launch, tell: &OwnedFd, oom: i32) -> ! {
    sys::become_subreaper();
    sys::set_name(c"reaper");
    if oom != 0 {
        // An undumpable process can't open its own files in /proc. Nothing is in our memory that
        // the sandbox may not see.
        sys::set_dumpable(true);
        let _ = std::fs::write("/proc/self/oom_score_adj", oom.to_string());
        sys::set_dumpable(false);
    }
    let main = match launch.clone_child() {
        Ok(pid) => pid,
        Err(errno) => {
            say(tell.as_raw_fd(), -errno.raw_os_error());
            quit();
        }
    };
    say(tell.as_raw_fd(), main);
    // SAFETY: plain numbers. The pipe moves to 0, and nothing else stays open. A session of our
    // own, so that signals to the agent's group don't reach us.
    unsafe {
        libc::setsid();
        libc::dup2(tell.as_raw_fd(), 0);
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
    }
    loop {
        let mut status: c_int = 0;
        // SAFETY: a valid place for the status.
        let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
        if pid == main {
            say(0, status);
        } else if pid < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            quit();
        }
    }
}

fn say(fd: i32, number: i32) {
    let bytes = number.to_ne_bytes();
    // SAFETY: four valid bytes; a pipe takes them whole.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

fn quit() -> ! {
    // SAFETY: ends the process without running what the agent registered for its own end.
    unsafe { libc::_exit(0) }
}
