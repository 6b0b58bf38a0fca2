//! The agent's first and last steps.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::time::{TimerfdClockId, TimerfdFlags, Timespec, timerfd_create};

use crate::Config;
use crate::console::Console;
use crate::exec::{Cgroups, OomKills, kill_below, user};
use crate::files::Tree;
use crate::server::{Agent, Token, add};
use crate::sys;

/// How long an unconfined agent waits at its end for what it killed.
const LAST_WAIT_NANOS: u64 = 2_000_000_000;

impl Agent {
    pub(crate) fn new(config: Config) -> Result<Self, Errno> {
        sys::occupy_standard_streams();
        let confined = rustix::process::getpid().is_init();
        if confined {
            sys::set_dumpable(false);
        } else {
            sys::become_subreaper();
        }
        sys::set_name(c"agent");
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let fds = [Some(&config.listener), Some(&config.root), config.cgroup.as_ref()];
        for fd in fds.into_iter().chain([config.oom_events.as_ref(), config.tied_to.as_ref()]) {
            fd.map_or(Ok(()), |fd| fcntl_setfd(fd, FdFlags::CLOEXEC))?;
        }
        ioctl_fionbio(&config.listener, true)?;
        let mut tree = Tree::new(config.root, &config.workdir);
        // One that the image does not have is said when a command starts.
        if let Some(user) = &config.user
            && let Ok(user) = user::find_default(&tree, user)
            && let Some(identity) = user.identity
        {
            tree.belongs_to(identity.uid, identity.gid);
        }
        // Without it commands say so when they start; files can still be written.
        let _ = tree.make_dirs(tree.workdir());
        let mut agent = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listener: config.listener,
            signal: sys::signals()?,
            timer: timerfd_create(
                TimerfdClockId::Boottime,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            armed: u64::MAX,
            tied_to: config.tied_to,
            confined,
            sandbox_id: config.sandbox_id,
            env: config.env,
            user: config.user,
            workdir: tree.workdir().to_owned(),
            deadline: config.deadline_boot_nanos,
            oom_score_adj: config.oom_score_adj,
            tree,
            null: rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            console: Console::new(config.limits.console_bytes as usize),
            cgroups: config.cgroup.and_then(|dir| Cgroups::open(dir).ok()),
            limits: config.limits,
            oom: OomKills::new(config.oom_events),
            conns: BTreeMap::new(),
            next_conn: 0,
            execs: BTreeMap::new(),
            next_exec: 0,
            logs: BTreeMap::new(),
            ended: VecDeque::new(),
            past: VecDeque::new(),
            finished: VecDeque::new(),
            drains: BTreeMap::new(),
            tasks: VecDeque::new(),
            scratch: Vec::new(),
            stacks: Vec::new(),
            touched: 0,
            hold_until: 0,
            ending: None,
        };
        agent.watch_all()?;
        agent.console.note("agent started");
        Ok(agent)
    }

    fn watch_all(&mut self) -> Result<(), Errno> {
        let edge = EventFlags::IN | EventFlags::ET;
        add(&self.epoll, &self.listener, Token::Listener, edge)?;
        add(&self.epoll, &self.signal, Token::Signal, EventFlags::IN)?;
        add(&self.epoll, &self.timer, Token::Timer, edge)?;
        if let Some(tied) = &self.tied_to {
            ioctl_fionbio(tied, true)?;
            add(&self.epoll, tied, Token::Tied, edge)?;
        }
        // Only in a sandbox of its own: elsewhere the first terminal is somebody else's.
        if self.confined
            && let Some(pty) = self.console.open()
        {
            add(&self.epoll, pty, Token::Console, edge)?;
        }
        Ok(())
    }

    /// As PID 1 there is nothing to do: the kernel ends the namespace with us. Elsewhere all that
    /// was started is killed.
    pub(crate) fn finish(mut self) {
        self.flush();
        if self.confined {
            return;
        }
        let until = sys::now() + LAST_WAIT_NANOS;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let running = std::mem::take(&mut self.execs).into_values().filter_map(|e| e.cgroup);
        let running: Vec<_> = running.collect();
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill_all(&running);
        }
        while sys::now() < until {
            kill_below(&[own]);
            match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Err(Errno::CHILD) => break,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => wait_readable(&self.signal),
            }
        }
        if let Some(cgroups) = self.cgroups {
            cgroups.remove_all(&running);
        }
    }
}

/// Waits a little for a child to end.
fn wait_readable(signal: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = rustix::io::read(signal, &mut [0; 128]);
    let short = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    let _ = poll(&mut [PollFd::new(signal, PollFlags::IN)], Some(&short));
}
