//! The end of a command: by itself, by its deadline, by a cancel.

use protocol::agent::{AgentErrorCode, Body, Channel, ExecInfo, Kind};
use rustix::io::Errno;

use super::{GRACE_NANOS, OOM_AFTER_NANOS};
use crate::error::{Outcome, bad_request, fail};
use crate::exec::{Exec, Exit, Launch, Stream, kill_below, parent_of, raise, signal};
use crate::server::{Agent, Task};
use crate::sys;

/// Until the next try to kill what forks while it is killed, or has not entered its cgroup yet.
const KILL_AGAIN_NANOS: u64 = 10_000_000;
/// Each after twice the wait, two seconds in all: entering a cgroup takes many milliseconds where
/// the kernel first has to wait for its readers.
const OOM_TRIES: u32 = 11;
/// Ended commands that nobody fetched.
const REMEMBERED: usize = 64;
/// Processes reaped before others get their turn.
const REAPED: usize = 256;

impl Agent {
    /// Its connection is lost: it runs on, its output goes into the ring.
    pub(crate) fn disown(&mut self, key: u64) {
        if let Some(exec) = self.execs.get_mut(&key) {
            exec.owner = None;
            self.begin_log(key);
            self.queue_pumps(key);
            self.settle(key);
        }
    }

    pub(crate) fn cancel_exec(&mut self, key: u64) {
        if let Some(exec) = self.execs.get_mut(&key) {
            exec.cancelled = true;
            self.queue_pumps(key);
            self.kill_exec(key);
            self.settle(key);
        }
    }

    pub(crate) fn signal_exec(&mut self, exec_id: &str, name: &str) -> Outcome<()> {
        let number = signal::parse(name).ok_or_else(|| bad_request("no such signal"))?;
        let (_, exec) = self.running(exec_id)?;
        let front = exec.out.pipe.as_ref().filter(|_| exec.terminal).and_then(sys::foreground);
        let Some(pid) = front.or(exec.group()) else {
            return Err(fail(AgentErrorCode::Conflict, "the command has not started yet"));
        };
        // Before its setsid the command has no group of its own.
        match sys::kill(-pid, number).or_else(|_| sys::kill(pid, number)) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(_) => Err(fail(AgentErrorCode::Denied, "the signal was refused")),
        }
    }

    /// Kills all descendants of a command, and sees to it that this is done again where needed.
    pub(super) fn kill_exec(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let mut complete = true;
        if let (Some(groups), Some(group)) = (&self.cgroups, &exec.cgroup) {
            groups.kill(group);
        } else if let Some(reaper) = exec.reaper {
            complete = kill_below(&[reaper]);
            // Told once already, and still it says nothing: somebody inside has stopped it. Its
            // dead become our own.
            if complete && exec.exit.is_none() && exec.kill_at.is_some() {
                let _ = sys::kill(reaper, libc::SIGKILL);
            }
        }
        if exec.exit.is_none()
            && let Some(main) = exec.main
            // Under a reaper the walk has found it; its number may be free again by now.
            && (exec.reaper.is_none() || exec.cgroup.is_some())
        {
            if exec.cgroup.is_none() {
                complete &= kill_below(&[main]);
            }
            let _ = sys::kill(main, libc::SIGKILL);
        }
        let again = exec.exit.is_none() || !complete;
        exec.kill_at = again.then(|| sys::now() + KILL_AGAIN_NANOS);
    }

    pub(crate) fn on_exec_due(&mut self, key: u64, now: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let is_due = |at: u64| at <= now;
        if exec.next_timeout().is_some_and(is_due) {
            exec.timed_out = true;
            exec.last_words = Some("exec timeout\n");
            self.kill_exec(key);
        } else if exec.kill_at.is_some_and(is_due) {
            self.kill_exec(key);
        }
        let Some(exec) = self.execs.get_mut(&key) else { return };
        if let Some((at, tries)) = exec.oom_at
            && is_due(at)
        {
            let raised = exec.main.map_or(Ok(()), |pid| raise(pid, self.oom_score_adj));
            let again = raised.is_err() && tries < OOM_TRIES;
            exec.oom_at = again.then_some((now + (OOM_AFTER_NANOS << tries), tries + 1));
        }
        self.settle(key);
    }

    /// Collects what has exited. Orphans of the whole sandbox end up here too.
    pub(crate) fn reap(&mut self) {
        // All of them: root inside may send one to this very thread, which waits beside the
        // kernel's. One left unread would be the last that is told of.
        let mut several = [0; 8 * size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.signal, &mut several).is_ok() {}
        for _ in 0..REAPED {
            let Ok(Some((pid, status))) =
                rustix::process::wait(rustix::process::WaitOptions::NOHANG)
            else {
                return;
            };
            let pid = pid.as_raw_nonzero().get();
            let key = |find: &dyn Fn(&Exec) -> bool| {
                self.execs.iter().find(|(_, e)| find(e)).map(|(key, _)| *key)
            };
            if let Some(key) = key(&|e| e.main == Some(pid) && e.exit.is_none()) {
                self.on_exit(key, status.as_raw());
            } else if let Some(key) = key(&|e| e.reaper == Some(pid)) {
                self.on_reaper_gone(key);
            }
        }
        self.tasks.push_back(Task::Reap);
    }

    /// A reaper ends when it has no children left, or because somebody inside killed it. Then the
    /// command has become our own child, and its end comes to us, unless the reaper took it along.
    fn on_reaper_gone(&mut self, key: u64) {
        self.on_reaper_tells(key);
        let Some(exec) = self.execs.get_mut(&key) else { return };
        exec.reaper = None;
        exec.tells = None;
        if exec.exit.is_some() {
            return;
        }
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let ours = exec.main.is_some_and(|pid| is_child(pid, own));
        if !ours {
            self.on_exit(key, libc::SIGKILL);
        }
    }

    /// The main process has exited.
    pub(super) fn on_exit(&mut self, key: u64, status: i32) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        let code = if signal > 0 { 128 + signal } else { libc::WEXITSTATUS(status) };
        // 137 is also what a shell says whose command was killed.
        let killed = code == 128 + libc::SIGKILL && !exec.timed_out && !exec.cancelled;
        let oom_killed =
            killed && self.oom.count().zip(exec.oom_base).is_some_and(|(now, before)| now > before);
        exec.exit = Some(Exit { code, signal, at: sys::now(), oom_killed });
        exec.oom_at = None;
        let refused = exec.launch.as_ref().and_then(Launch::cgroup_error);
        if let Some(launch) = exec.launch.take() {
            launch.recycle(&mut self.stacks);
        }
        for channel in [Channel::Out, Channel::Err] {
            let stream = exec.stream(channel);
            if let Some(pipe) = &stream.pipe {
                stream.owed = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
                stream.ready = true;
                stream.last = true;
            }
        }
        if refused.is_some() {
            exec.failed = Some(fail(AgentErrorCode::Internal, "the command could not be confined"));
        }
        if exec.kill_at.is_some() {
            self.kill_exec(key);
        }
        self.queue_pumps(key);
        self.settle(key);
    }

    /// Finishes a command that has exited and whose output is delivered.
    pub(crate) fn settle(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let Some(exit) = &exec.exit else { return };
        if exec.kill_at.is_some() {
            return;
        }
        exec.grace_over |= sys::now() >= exit.at + GRACE_NANOS;
        let over = exec.cancelled || exec.grace_over;
        let delivered = |s: &Stream| s.pipe.is_none() || (over && (s.owed == 0 || exec.cancelled));
        if !delivered(&exec.out) || !delivered(&exec.err) {
            return;
        }
        if let Some(words) = exec.last_words
            && !exec.cancelled
            && let Some((id, call)) = exec.owner
            && let Some(conn) = self.conns.get_mut(&id)
            && let Some(state) = conn.calls.get_mut(&call)
        {
            let cost = words.len() as u64;
            if state.credit < cost {
                return;
            }
            state.credit -= cost;
            conn.out.frame(Kind::Data, Channel::Err, call, words.as_bytes());
        }
        let channel = if exec.terminal { Channel::Out } else { Channel::Err };
        if let Some(words) = exec.last_words.filter(|_| !exec.cancelled)
            && let Some(log) = self.logs.get_mut(&key)
        {
            log.ring.push(channel, words.as_bytes());
        }
        self.finish_exec(key);
    }

    fn finish_exec(&mut self, key: u64) {
        let Some(mut exec) = self.execs.remove(&key) else { return };
        let done = exec.done();
        let note = if exec.timed_out { " (timed out)" } else { "" };
        if !exec.quiet {
            self.console.note(&format!("exec {} exited: {}{note}", exec.id, done.exit_code));
        }
        for channel in [Channel::Out, Channel::Err] {
            // A terminal hangs up instead: that is what its programs expect.
            if let Some(pipe) = exec.stream(channel).pipe.take()
                && !exec.terminal
            {
                self.keep_draining(Self::token_of(key, channel), pipe);
            }
        }
        if let (Some(groups), Some(group)) = (&mut self.cgroups, exec.cgroup.take()) {
            groups.give(group);
        }
        self.end_feeds(key, exec.input.as_ref());
        if let Some(log) = self.logs.get_mut(&key) {
            log.end = Some(exec.failed.clone().map_or_else(|| Ok(done.clone()), Err));
            if log.is_kept() {
                return self.keep_log(key);
            }
            self.serve_log(key);
            self.logs.remove(&key);
        }
        let info = ExecInfo { done: Some(done.clone()), ..exec.info() };
        let info = ExecInfo { running: false, ..info };
        let conn = exec.owner.and_then(|(id, call)| Some((self.conns.get_mut(&id)?, call)));
        match conn {
            Some((conn, call)) => {
                conn.end(call, exec.failed.map_or(Ok(Body::Exec(done)), Err));
                conn.unsent.push(info);
            }
            None => self.remember(info),
        }
    }

    pub(crate) fn remember(&mut self, info: ExecInfo) {
        self.finished.push_back(info);
        if self.finished.len() > REMEMBERED {
            self.finished.pop_front();
        }
    }
}

/// Whether `pid` is a child of ours, dead or alive.
fn is_child(pid: i32, own: i32) -> bool {
    parent_of(pid) == Some(own)
}
