//! From an [`ExecSpec`] to a process: strings, pipes or a terminal, clone.

use std::ffi::{CString, c_char, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use protocol::agent::{ExecSpec, TtySize};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Identity, Plan};
use super::reaper;
use crate::error::{Outcome, bad_request};
use crate::sys;

/// Of a command whose environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The child's stack until its execve: a few frames and system calls.
const STACK: usize = 32 * 1024;
/// Stacks kept for the next commands; pages touched once cost no fault again.
const STACKS: usize = 2;
/// Characters of a program's name in a complaint.
const NAME: usize = 128;

/// Memory that a child uses until its execve. Kept until the process is reaped: only then is it
/// certain that nobody uses it.
pub(crate) struct Launch {
    plan: Box<Plan>,
    stack: Vec<u8>,
    _strings: Vec<CString>,
}

/// What a command reads from and writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stdio {
    Pipes { stdin: bool },
    Terminal(TtySize),
}

/// Our ends of the pipes of a command. Of a terminal there is one, for both ways.
pub(crate) struct Pipes {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
}

/// The command's ends.
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: bool,
}

/// What was started.
pub(crate) enum Started {
    /// The command itself, a child of ours.
    Child(i32),
    /// A subreaper that starts it, and the pipe on which it tells.
    Reaper(i32, OwnedFd),
}

/// Where a command goes.
pub(crate) enum Where<'a> {
    /// Into the cgroup with this `cgroup.procs`.
    Cgroup(&'a OwnedFd),
    /// Below a subreaper, which raises its `oom_score_adj` by itself.
    Reaper { oom_score_adj: i32 },
}

impl Launch {
    /// Checks a command and lays out its strings.
    pub(crate) fn new(base: &[String], spec: &ExecSpec, stack: Option<Vec<u8>>) -> Outcome<Self> {
        let Some(program) = spec.argv.first() else {
            return Err(bad_request("the command is empty"));
        };
        let env = environment(base, &spec.env)?;
        let mut strings = Vec::with_capacity(spec.argv.len() + env.len() + 8);
        for arg in &spec.argv {
            strings.push(text(arg.as_bytes())?);
        }
        let args = strings.len();
        for variable in &env {
            strings.push(text(variable.as_bytes())?);
        }
        let vars = strings.len();
        if program.contains('/') || program.is_empty() {
            strings.push(text(program.as_bytes())?);
        } else {
            let path = env.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
            for dir in path.split(':') {
                let dir = if dir.is_empty() { "." } else { dir };
                strings.push(text(format!("{dir}/{program}").as_bytes())?);
            }
        }
        let pointers =
            |from: &[CString]| -> Vec<*const c_char> { from.iter().map(|s| s.as_ptr()).collect() };
        let ended = |from: &[CString]| {
            let mut list = pointers(from);
            list.push(std::ptr::null());
            list
        };
        let name: String = program.chars().take(NAME).collect();
        let plan = Box::new(Plan {
            candidates: pointers(&strings[vars..]),
            argv: ended(&strings[..args]),
            envp: ended(&strings[args..vars]),
            complaint: format!("sh: {name}: ").into_bytes(),
            stdin: -1,
            stdout: -1,
            stderr: -1,
            cwd: -1,
            cgroup: -1,
            cgroup_error: AtomicI32::new(0),
            terminal: false,
            identity: None,
        });
        let stack = stack.unwrap_or_else(|| Vec::with_capacity(STACK));
        Ok(Self { plan, stack, _strings: strings })
    }

    /// Sets as whom to run.
    pub(crate) fn become_user(&mut self, identity: Identity) {
        self.plan.identity = Some(identity);
    }

    /// Starts the command. `cwd` and `null` are for this call only; `self` has to be kept until
    /// the process is reaped.
    pub(crate) fn start(
        &mut self,
        stdio: Stdio,
        cwd: &OwnedFd,
        null: &OwnedFd,
        place: Where<'_>,
    ) -> Result<(Started, Pipes), Errno> {
        let (ours, theirs) = match stdio {
            Stdio::Pipes { stdin } => pipes(stdin)?,
            Stdio::Terminal(size) => terminal(size)?,
        };
        if let Some(identity) = &self.plan.identity {
            theirs.give_to(identity)?;
        }
        let stdin = if theirs.terminal { Some(&theirs.stdout) } else { theirs.stdin.as_ref() };
        self.plan.stdin = stdin.unwrap_or(null).as_raw_fd();
        self.plan.stdout = theirs.stdout.as_raw_fd();
        self.plan.stderr = theirs.stderr.as_ref().unwrap_or(&theirs.stdout).as_raw_fd();
        self.plan.terminal = theirs.terminal;
        self.plan.cwd = cwd.as_raw_fd();
        let started = match place {
            Where::Cgroup(procs) => {
                self.plan.cgroup = procs.as_raw_fd();
                Started::Child(self.clone_child()?)
            }
            Where::Reaper { oom_score_adj } => {
                self.plan.cgroup = -1;
                let (near, far) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&near, true)?;
                let pid = reaper::start(self, &far, oom_score_adj)?;
                Started::Reaper(pid, near)
            }
        };
        Ok((started, ours))
    }

    /// Clones a child that shares our memory until its execve.
    pub(super) fn clone_child(&mut self) -> Result<i32, Errno> {
        let top = self.stack.spare_capacity_mut().as_mut_ptr_range().end as usize & !15;
        let arg = (&raw mut *self.plan).cast::<c_void>();
        // SAFETY: `child::main` obeys the rules of its module; the stack and the plan, with all
        // that it points to, live in `self` until the child is reaped, and nobody else writes
        // to them meanwhile.
        let pid = unsafe {
            libc::clone(child::main, top as *mut c_void, libc::CLONE_VM | libc::SIGCHLD, arg)
        };
        if pid < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN));
        }
        Ok(pid)
    }

    /// The error with which the cgroup refused the child, if it did.
    pub(crate) fn cgroup_error(&self) -> Option<i32> {
        Some(self.plan.cgroup_error.load(Ordering::Acquire)).filter(|e| *e != 0)
    }

    /// Gives the stack to the next command. The process must have been reaped.
    pub(crate) fn recycle(self, stacks: &mut Vec<Vec<u8>>) {
        if stacks.len() < STACKS {
            stacks.push(self.stack);
        }
    }
}

fn pipes(stdin: bool) -> Result<(Pipes, Ends), Errno> {
    let (out, out_far) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err, err_far) = pipe_with(PipeFlags::CLOEXEC)?;
    // Not blocking on our side only: the two ends of a pipe are files of their own.
    rustix::io::ioctl_fionbio(&out, true)?;
    rustix::io::ioctl_fionbio(&err, true)?;
    let (mut input, mut input_far) = (None, None);
    if stdin {
        let (far, near) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&near, true)?;
        (input, input_far) = (Some(near), Some(far));
    }
    let ours = Pipes { stdin: input, stdout: out, stderr: Some(err) };
    let stderr = Some(err_far);
    Ok((ours, Ends { stdin: input_far, stdout: out_far, stderr, terminal: false }))
}

fn terminal(size: TtySize) -> Result<(Pipes, Ends), Errno> {
    let (near, far) = sys::open_terminal()?;
    sys::resize(&near, size.cols, size.rows)?;
    let stdin = Some(rustix::io::fcntl_dupfd_cloexec(&near, 3)?);
    let ours = Pipes { stdin, stdout: near, stderr: None };
    Ok((ours, Ends { stdin: None, stdout: far, stderr: None, terminal: true }))
}

impl Ends {
    /// Whoever runs may open them again by name, as `/dev/stdout` or `/dev/pts/N`.
    fn give_to(&self, identity: &Identity) -> Result<(), Errno> {
        let uid = rustix::fs::Uid::from_raw(identity.uid);
        for end in self.stdin.iter().chain([&self.stdout]).chain(&self.stderr) {
            rustix::fs::fchown(end, Some(uid), None)?;
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Outcome<CString> {
    CString::new(bytes).map_err(|_| bad_request("the command or its environment holds a zero byte"))
}

/// The sandbox's variables, with the command's own on top.
fn environment(base: &[String], own: &[(String, String)]) -> Outcome<Vec<String>> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut result: Vec<String> = Vec::with_capacity(base.len() + own.len());
    let mut put = |variable: String| {
        let key = name(&variable);
        match result.iter_mut().find(|v| name(v) == key) {
            Some(old) => *old = variable,
            None => result.push(variable),
        }
    };
    base.iter().for_each(|variable| put(variable.clone()));
    for (key, value) in own {
        if key.is_empty() || key.contains('=') {
            return Err(bad_request("an environment variable needs a name without ="));
        }
        put(format!("{key}={value}"));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variables_cover_the_base() {
        let base = ["PATH=/bin".to_owned(), "HOME=/root".to_owned()];
        let own = [("HOME".to_owned(), "/x=y".to_owned()), ("A".to_owned(), String::new())];
        assert_eq!(environment(&base, &own).unwrap(), ["PATH=/bin", "HOME=/x=y", "A="]);
        assert!(environment(&base, &[("A=B".into(), "c".into())]).is_err());
    }
}
