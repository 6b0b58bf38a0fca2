//! The life of a command, from its request to its end.

use protocol::agent::{
    AgentErrorCode, Body, Channel, Event, ExecInfo, ExecSpec, Kind, MAX_PAYLOAD,
};
use rustix::io::Errno;
use types::ExecId;

use crate::connection::Work;
use crate::console::escape;
use crate::error::{Outcome, bad_request, fail, on_path};
use crate::exec::{
    Exec, Exit, Input, Launch, Ring, Started, Stream, Where, kill_below, parent_of, raise, signal,
};
use crate::server::{Agent, Task, Token};
use crate::sys;

/// How long children that hold the pipes are waited for once the command itself has exited.
pub(crate) const GRACE_NANOS: u64 = 100_000_000;
/// Until the next try to kill what forks while it is killed, or has not entered its cgroup yet.
const KILL_AGAIN_NANOS: u64 = 10_000_000;
/// A command that is over sooner needs no `oom_score_adj`; one that is not has done its execve.
const OOM_AFTER_NANOS: u64 = 1_000_000;
const OOM_TRIES: u32 = 5;
/// Ended commands that nobody fetched.
const REMEMBERED: usize = 64;
/// Pipes of ended commands that living children may still write into.
const DRAINS: usize = 64;
/// Processes reaped before others get their turn.
const REAPED: usize = 256;
/// Characters of a program's name on the console.
const NAME: usize = 100;

impl Agent {
    pub(crate) fn start_exec(&mut self, id: u32, call: u32, spec: &ExecSpec) -> Outcome<()> {
        ExecId::parse(spec.exec_id.as_str()).map_err(|e| bad_request(e.to_string()))?;
        if spec.tty.is_some() || spec.user.is_some() || spec.detach {
            let text = "terminals, users and detached commands are not known to this agent";
            return Err(fail(AgentErrorCode::Unsupported, text));
        }
        if self.execs.values().any(|e| e.id == spec.exec_id) {
            return Err(fail(AgentErrorCode::Conflict, "a command runs under that id already"));
        }
        if self.execs.len() >= self.limits.max_execs as usize {
            return Err(no_resources());
        }
        let cwd = spec.cwd.as_deref().unwrap_or(&self.workdir);
        let cwd_fd = self.tree.open_dir(&self.tree.absolute(cwd)?).map_err(|e| on_path(e, cwd))?;
        let mut launch = Launch::new(&self.env, spec, self.stacks.pop())?;
        let oom_base = self.oom.count();
        let cgroup = match &mut self.cgroups {
            Some(groups) => Some(groups.take().map_err(out_of)?),
            None => None,
        };
        let procs = match (&self.cgroups, &cgroup) {
            (Some(groups), Some(group)) => Some(groups.procs(group).map_err(out_of)?),
            _ => None,
        };
        let place = match &procs {
            Some(procs) => Where::Cgroup(procs),
            None => Where::Reaper { oom_score_adj: self.oom_score_adj },
        };
        let (started, pipes) = match launch.start(spec.stdin, &cwd_fd, &self.null, place) {
            Ok(started) => started,
            Err(errno) => {
                if let (Some(groups), Some(group)) = (&mut self.cgroups, cgroup) {
                    groups.give(group);
                }
                return Err(out_of(errno));
            }
        };
        let now = sys::now();
        let key = self.next_exec;
        self.next_exec += 1;
        let stream = |pipe| Stream { pipe: Some(pipe), ..Stream::default() };
        let input = |pipe| Input { pipe, pending: Default::default(), eof: false };
        let mut exec = Exec {
            id: spec.exec_id.clone(),
            owner: Some((id, call)),
            main: None,
            reaper: None,
            tells: None,
            cgroup,
            out: stream(pipes.stdout),
            err: stream(pipes.stderr),
            input: pipes.stdin.map(input),
            launch: Some(launch),
            ring: Ring::new(self.limits.ring_bytes as usize),
            deadline: spec.timeout_ms.map(|ms| now.saturating_add(ms.saturating_mul(1_000_000))),
            kill_at: None,
            oom_at: None,
            oom_base,
            exit: None,
            grace_over: false,
            timed_out: false,
            cancelled: false,
            failed: None,
            last_words: None,
        };
        match started {
            Started::Child(pid) => {
                exec.main = Some(pid);
                exec.oom_at = (self.oom_score_adj != 0).then_some((now + OOM_AFTER_NANOS, 0));
            }
            Started::Reaper(pid, tells) => {
                exec.reaper = Some(pid);
                exec.tells = Some(tells);
            }
        }
        self.execs.insert(key, exec);
        self.open_call(id, call, Work::Exec(key));
        self.watch_exec(key);
        let name = spec.argv.first().map_or("", String::as_str);
        self.console.note(&format!("exec {} started: {}", spec.exec_id, escape(name, NAME)));
        self.tell_started(key);
        Ok(())
    }

    fn watch_exec(&self, key: u64) {
        let Some(exec) = self.execs.get(&key) else { return };
        // Adding a fresh pipe fails for want of memory only; then the exec ends with its deadline.
        for (channel, stream) in [(Channel::Out, &exec.out), (Channel::Err, &exec.err)] {
            if let Some(pipe) = &stream.pipe {
                let _ = self.watch(pipe, Token::Output(key, channel));
            }
        }
        if let Some(input) = &exec.input {
            let _ = self.watch(&input.pipe, Token::Input(key));
        }
        if let Some(tells) = &exec.tells {
            let _ = self.watch(tells, Token::Reaper(key));
        }
    }

    /// Says that the main process is there, once its pid is known.
    fn tell_started(&mut self, key: u64) {
        if let Some(exec) = self.execs.get(&key)
            && exec.main.is_some()
            && let Some((id, call)) = exec.owner
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.out.json(Kind::Event, call, &Event::Started { exec_id: exec.id.clone() });
        }
    }

    pub(crate) fn on_reaper_tells(&mut self, key: u64) {
        while let Some(exec) = self.execs.get_mut(&key) {
            let Some(tells) = &exec.tells else { return };
            let mut bytes = [0; 4];
            match rustix::io::read(tells, &mut bytes) {
                Ok(4) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    exec.tells = None;
                    return;
                }
            }
            let number = i32::from_ne_bytes(bytes);
            if exec.main.is_some() {
                self.on_exit(key, number);
            } else if number > 0 {
                exec.main = Some(number);
                self.tell_started(key);
            } else {
                exec.failed = Some(no_resources());
                self.on_exit(key, 0);
            }
        }
    }

    pub(crate) fn on_output(&mut self, key: u64, channel: Channel, hung_up: bool) {
        if let Some(exec) = self.execs.get_mut(&key) {
            let stream = exec.stream(channel);
            stream.ready = true;
            stream.last |= hung_up;
            self.queue_pumps(key);
        } else {
            self.drain(Self::token_of(key, channel));
        }
    }

    /// Queues the outputs that have something to read.
    pub(crate) fn queue_pumps(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        for channel in [Channel::Out, Channel::Err] {
            let stream = exec.stream(channel);
            if stream.pipe.is_some() && stream.ready && !stream.queued {
                stream.queued = true;
                self.tasks.push_back(Task::Pump(key, channel));
            }
        }
    }

    /// Reads once from an output, if its call has credit and its connection room.
    pub(crate) fn pump(&mut self, key: u64, channel: Channel) {
        self.scratch();
        let Self { execs, conns, scratch, .. } = self;
        let Some(exec) = execs.get_mut(&key) else { return };
        let (owner, cancelled) = (exec.owner, exec.cancelled);
        let stream = exec.stream(channel);
        stream.queued = false;
        let Some(pipe) = &stream.pipe else { return };
        let owner = owner.filter(|_| !cancelled);
        let conn = owner.and_then(|(id, call)| Some((conns.get_mut(&id)?, call)));
        let (max, got) = match conn {
            Some((conn, call)) => {
                let Some(state) = conn.calls.get_mut(&call) else { return };
                if !conn.out.has_room() {
                    conn.starved = true;
                    return;
                }
                let max = MAX_PAYLOAD.min(usize::try_from(state.credit).unwrap_or(usize::MAX));
                if max == 0 {
                    return;
                }
                let got = conn.out.data_from(pipe, channel, call, max);
                state.credit -= got.unwrap_or(0) as u64;
                (max, got)
            }
            None => {
                scratch.clear();
                let got = rustix::io::read(pipe, rustix::buffer::spare_capacity(scratch));
                let got = got.map(|n| {
                    if !cancelled {
                        exec.ring.push(&scratch[..n]);
                    }
                    n
                });
                (scratch.capacity(), got)
            }
        };
        let stream = exec.stream(channel);
        match got {
            Ok(0) => {
                stream.pipe = None;
                stream.owed = 0;
            }
            Ok(n) => {
                self.touched += n;
                stream.owed = stream.owed.saturating_sub(n as u64);
                // A short read emptied the pipe; unless no more edges come, the next one tells.
                stream.ready = n == max || stream.last;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                stream.ready = false;
                stream.owed = 0;
            }
            Err(_) => stream.pipe = None,
        }
        self.queue_pumps(key);
        self.settle(key);
    }

    /// Takes input for a command from its connection.
    pub(crate) fn take_input(&mut self, key: u64, bytes: &[u8]) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        match &mut exec.input {
            Some(input) if !input.eof => {
                input.pending.extend(bytes);
                self.touched += bytes.len();
                self.feed(key);
            }
            // It does not read any more: what still comes is thrown away, the sender not stopped.
            Some(_) | None => self.give_credit(key, bytes.len()),
        }
    }

    pub(crate) fn end_input(&mut self, key: u64) {
        if let Some(input) = self.execs.get_mut(&key).and_then(|e| e.input.as_mut()) {
            input.eof = true;
            self.feed(key);
        }
    }

    /// Writes pending input into the pipe, as far as it takes it.
    pub(crate) fn feed(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let Some(input) = &mut exec.input else { return };
        let mut used = 0;
        let open = loop {
            if input.pending.is_empty() {
                break !input.eof;
            }
            match rustix::io::write(&input.pipe, input.pending.as_slices().0) {
                Ok(n) => {
                    input.pending.drain(..n);
                    used += n;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(_) => {
                    used += input.pending.len();
                    break false;
                }
            }
        };
        if !open {
            exec.input = None;
        } else if input.pending.is_empty() {
            input.pending.shrink_to_fit();
        }
        self.give_credit(key, used);
    }

    fn give_credit(&mut self, key: u64, bytes: usize) {
        if let Some((id, call)) = self.execs.get(&key).and_then(|e| e.owner)
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.consumed(call, bytes);
        }
    }

    /// Its connection is lost: it runs on, its output goes into the ring.
    pub(crate) fn disown(&mut self, key: u64) {
        if let Some(exec) = self.execs.get_mut(&key) {
            exec.owner = None;
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
        let group = self.execs.values().find(|e| e.id == exec_id).and_then(Exec::group);
        let Some(pid) = group else { return Err(bad_request("no command runs under that id")) };
        // Before its setsid the command has no group of its own.
        match sys::kill(-pid, number).or_else(|_| sys::kill(pid, number)) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(_) => Err(fail(AgentErrorCode::Denied, "the signal was refused")),
        }
    }

    /// Kills all descendants of a command, and sees to it that this is done again where needed.
    fn kill_exec(&mut self, key: u64) {
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
            exec.oom_at = again.then_some((now + OOM_AFTER_NANOS, tries + 1));
        }
        self.settle(key);
    }

    /// Collects what has exited. Orphans of the whole sandbox end up here too.
    pub(crate) fn reap(&mut self) {
        let _ = rustix::io::read(&self.signal, &mut [0; 128]);
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
    fn on_exit(&mut self, key: u64, status: i32) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let code = if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        // 137 is also what a shell says whose command was killed.
        let killed = code == 128 + libc::SIGKILL && !exec.timed_out && !exec.cancelled;
        let oom_killed =
            killed && self.oom.count().zip(exec.oom_base).is_some_and(|(now, before)| now > before);
        exec.exit = Some(Exit { code, at: sys::now(), oom_killed });
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
        self.finish_exec(key);
    }

    fn finish_exec(&mut self, key: u64) {
        let Some(mut exec) = self.execs.remove(&key) else { return };
        let done = exec.done();
        let note = if exec.timed_out { " (timed out)" } else { "" };
        self.console.note(&format!("exec {} exited: {}{note}", exec.id, done.exit_code));
        for channel in [Channel::Out, Channel::Err] {
            if let Some(pipe) = exec.stream(channel).pipe.take() {
                self.keep_draining(Self::token_of(key, channel), pipe);
            }
        }
        if let (Some(groups), Some(group)) = (&mut self.cgroups, exec.cgroup.take()) {
            groups.give(group);
        }
        let info = ExecInfo { exec_id: exec.id, running: false, done: Some(done.clone()) };
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

    /// Children that outlived their exec hold this pipe. Were it closed, their next word would
    /// kill them; so it is read, and thrown away.
    fn keep_draining(&mut self, token: u64, pipe: std::os::fd::OwnedFd) {
        self.drains.insert(token, pipe);
        if self.drains.len() > DRAINS {
            self.drains.pop_first();
        }
        self.tasks.push_back(Task::Drain(token));
    }

    pub(crate) fn drain(&mut self, token: u64) {
        self.scratch();
        let Some(pipe) = self.drains.get(&token) else { return };
        self.scratch.clear();
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(&mut self.scratch)) {
            Ok(0) => {
                self.drains.remove(&token);
            }
            Ok(_) | Err(Errno::INTR) => self.tasks.push_back(Task::Drain(token)),
            Err(Errno::AGAIN) => {}
            Err(_) => {
                self.drains.remove(&token);
            }
        }
    }
}

/// Whether `pid` is a child of ours, dead or alive.
fn is_child(pid: i32, own: i32) -> bool {
    parent_of(pid) == Some(own)
}

fn no_resources() -> protocol::agent::AgentError {
    fail(AgentErrorCode::NoResources, "no process is left in the sandbox")
}

/// Why a command could not be started.
fn out_of(errno: Errno) -> protocol::agent::AgentError {
    match errno {
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => no_resources(),
        other => {
            let text = format!("the command cannot be started: error {}", other.raw_os_error());
            fail(AgentErrorCode::Internal, text)
        }
    }
}
