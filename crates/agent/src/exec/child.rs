//! What runs between clone and execve, in memory shared with the agent.
//!
//! Nothing here allocates, locks, or touches thread-local data (errno among it): system calls are
//! made directly. The agent goes on meanwhile, on purpose: a child that somebody inside stops
//! before its execve must not stop the agent, as it would with CLONE_VFORK.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// A command, ready to be started: pointers into strings that live as long as the plan.
pub(super) struct Plan {
    /// The program's possible paths, in order.
    pub candidates: Vec<*const c_char>,
    /// Ends with a null pointer, as `envp`.
    pub argv: Vec<*const c_char>,
    pub envp: Vec<*const c_char>,
    /// `sh: NAME: `, how complaints begin.
    pub complaint: Vec<u8>,
    /// Descriptors, all above 2.
    pub stdin: i32,
    pub stdout: i32,
    pub stderr: i32,
    pub cwd: i32,
    /// `cgroup.procs` of the exec's cgroup, or -1.
    pub cgroup: i32,
    /// The error with which the cgroup refused the child.
    pub cgroup_error: AtomicI32,
    /// Whether stdin is a terminal, to be the controlling one.
    pub terminal: bool,
    /// As whom to run; as the agent without it.
    pub identity: Option<Identity>,
}

/// A user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All groups beside `gid`.
    pub groups: Vec<u32>,
}

/// Exit codes of a shell that finds no program, or none that it can execute.
const NOT_FOUND: c_int = 127;
const NOT_EXECUTABLE: c_int = 126;

#[cfg(target_arch = "x86_64")]
unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the x86_64 system call convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the aarch64 system call convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack)
        );
    }
    result
}

/// Becomes the command. `arg` is a [`Plan`].
pub(super) extern "C" fn main(arg: *mut c_void) -> c_int {
    // SAFETY: the starter passes a plan that outlives this process's use of the shared memory.
    let plan = unsafe { &*arg.cast::<Plan>() };
    // SAFETY: plain numbers, and pointers into the plan or to constants.
    unsafe {
        if plan.cgroup >= 0 {
            let r = call(libc::SYS_write, plan.cgroup as usize, c"0".as_ptr() as usize, 1, 0);
            if r != 1 {
                plan.cgroup_error
                    .store(if r < 0 { -r as i32 } else { libc::EIO }, Ordering::Release);
                exit(NOT_EXECUTABLE);
            }
        }
        call(libc::SYS_setsid, 0, 0, 0, 0);
        call(libc::SYS_dup3, plan.stdin as usize, 0, 0, 0);
        call(libc::SYS_dup3, plan.stdout as usize, 1, 0, 0);
        call(libc::SYS_dup3, plan.stderr as usize, 2, 0, 0);
        let entered = call(libc::SYS_fchdir, plan.cwd as usize, 0, 0, 0);
        call(libc::SYS_close_range, 3, u32::MAX as usize, 0, 0);
        if plan.terminal {
            call(libc::SYS_ioctl, 0, libc::TIOCSCTTY as usize, 0, 0);
        }
        let none: u64 = 0;
        let mask = &raw const none as usize;
        call(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK as usize, mask, 0, 8);
        if entered < 0 {
            complain(plan, b"cannot enter its working directory\n");
            exit(NOT_EXECUTABLE);
        }
        if let Some(identity) = &plan.identity
            && !become_user(identity)
        {
            complain(plan, b"cannot become that user\n");
            exit(NOT_EXECUTABLE);
        }
    }
    execute(plan)
}

/// Groups first: once the user is another, nothing more can be changed.
unsafe fn become_user(identity: &Identity) -> bool {
    let (uid, gid) = (identity.uid as usize, identity.gid as usize);
    let groups = identity.groups.as_slice();
    // SAFETY: plain numbers, and a list with its length.
    unsafe {
        call(libc::SYS_setgroups, groups.len(), groups.as_ptr() as usize, 0, 0) == 0
            && call(libc::SYS_setresgid, gid, gid, gid, 0) == 0
            && call(libc::SYS_setresuid, uid, uid, uid, 0) == 0
    }
}

/// Tries the candidates as a shell does: one that can't be executed is remembered while the others
/// are tried.
fn execute(plan: &Plan) -> c_int {
    let mut refused = 0;
    for candidate in &plan.candidates {
        // SAFETY: the candidate and the two lists are NUL- and null-terminated.
        let errno = -unsafe {
            call(
                libc::SYS_execve,
                *candidate as usize,
                plan.argv.as_ptr() as usize,
                plan.envp.as_ptr() as usize,
                0,
            )
        } as i32;
        match errno {
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => {}
            libc::EACCES | libc::ELOOP => refused = errno,
            other => {
                refused = other;
                break;
            }
        }
    }
    let words: &[u8] = match refused {
        0 => b"not found\n",
        libc::EACCES | libc::EPERM => b"Permission denied\n",
        libc::ENOEXEC => b"Exec format error\n",
        libc::E2BIG => b"Argument list too long\n",
        libc::ENOMEM | libc::EAGAIN => b"Out of memory\n",
        _ => b"cannot be executed\n",
    };
    complain(plan, words);
    exit(if refused == 0 { NOT_FOUND } else { NOT_EXECUTABLE })
}

fn complain(plan: &Plan, words: &[u8]) {
    for text in [plan.complaint.as_slice(), words] {
        // SAFETY: a valid pointer and its length.
        unsafe { call(libc::SYS_write, 2, text.as_ptr() as usize, text.len(), 0) };
    }
}

fn exit(code: c_int) -> c_int {
    // SAFETY: ends this process only; a child of clone without CLONE_THREAD is its own group.
    unsafe { call(libc::SYS_exit_group, code as usize, 0, 0, 0) };
    code
}
