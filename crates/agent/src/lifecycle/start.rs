//! The start of a command.

use protocol::agent::{AgentErrorCode, Body, Channel, Event, ExecSpec, Kind};
use rustix::io::Errno;
use types::ExecId;

use super::OOM_AFTER_NANOS;
use crate::connection::Work;
use crate::console::escape;
use crate::error::{Outcome, bad_request, fail, on_path};
use crate::exec::{Exec, Input, Launch, Log, Started, Stdio, Stream, Where, user};
use crate::flow::HOLD_NANOS;
use crate::server::{Agent, Token};
use crate::sys;

/// Characters of a program's name on the console.
const NAME: usize = 100;

impl Agent {
    pub(crate) fn start_exec(&mut self, id: u32, call: u32, spec: &ExecSpec) -> Outcome<()> {
        ExecId::parse(spec.exec_id.as_str()).map_err(|e| bad_request(e.to_string()))?;
        if self.is_known(&spec.exec_id) {
            return Err(fail(AgentErrorCode::Conflict, "that id is used already"));
        }
        if self.execs.len() >= self.limits.max_execs as usize {
            return Err(no_resources());
        }
        let cwd = spec.cwd.as_deref().unwrap_or(&self.workdir);
        let cwd_fd = self.tree.open_dir(&self.tree.absolute(cwd)?).map_err(|e| on_path(e, cwd))?;
        let mut launch = self.prepare(spec)?;
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
        let stdio = spec.tty.map_or(Stdio::Pipes { stdin: spec.stdin }, Stdio::Terminal);
        let (started, pipes) = match launch.start(stdio, &cwd_fd, &self.null, place) {
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
        let stream = |pipe| Stream { pipe, ..Stream::default() };
        let mut exec = Exec {
            id: spec.exec_id.clone(),
            owner: (!spec.detach).then_some((id, call)),
            main: None,
            reaper: None,
            tells: None,
            cgroup,
            out: stream(Some(pipes.stdout)),
            err: stream(pipes.stderr),
            input: pipes.stdin.map(Input::new),
            launch: Some(launch),
            terminal: spec.tty.is_some(),
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
            quiet: spec.quiet,
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
        if spec.detach {
            self.begin_log(key);
            if let Some(log) = self.logs.get_mut(&key) {
                log.start_with(id, call, spec.watch);
            }
        }
        self.open_call(id, call, if spec.detach { Work::View(key) } else { Work::Exec(key) });
        self.watch_exec(key);
        if !spec.quiet {
            let name = spec.argv.first().map_or("", String::as_str);
            self.console.note(&format!("exec {} started: {}", spec.exec_id, escape(name, NAME)));
        }
        self.tell_started(key);
        Ok(())
    }

    /// Lays a command out, for the user that it is to run as.
    fn prepare(&mut self, spec: &ExecSpec) -> Outcome<Launch> {
        let names_home = |env: &[String]| env.iter().any(|v| v.starts_with("HOME="));
        let (user, home_is_said) = match (&spec.user, &self.user) {
            (Some(asked), _) => (user::find(&self.tree, asked)?, false),
            // The image's own variables stand above what its list of users says.
            (None, Some(usual)) => (user::find_default(&self.tree, usual)?, names_home(&self.env)),
            (None, None) => return Launch::new(&self.env, spec, self.stacks.pop()),
        };
        let mut spec = spec.clone();
        if !home_is_said && !spec.env.iter().any(|(name, _)| name == "HOME") {
            let unknown = (!names_home(&self.env)).then(|| "/".to_owned());
            if let Some(home) = user.home.or(unknown) {
                spec.env.push(("HOME".to_owned(), home));
            }
        }
        let mut launch = Launch::new(&self.env, &spec, self.stacks.pop())?;
        if let Some(identity) = user.identity {
            launch.become_user(identity);
        }
        Ok(launch)
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
        let Self { execs, logs, conns, hold_until, .. } = self;
        let Some(exec) = execs.get(&key).filter(|e| e.main.is_some()) else { return };
        let log = logs.get_mut(&key);
        let (source, stays) = match (exec.owner, log.and_then(Log::started)) {
            (Some(source), _) => (source, true),
            (None, Some(started)) => started,
            (None, None) => return,
        };
        if let Some(conn) = conns.get_mut(&source.0)
            && conn.calls.contains_key(&source.1)
        {
            let started = Event::Started { exec_id: exec.id.clone() };
            let alone = conn.out.is_empty();
            conn.out.json(Kind::Event, source.1, &started);
            if alone {
                conn.held = conn.out.len();
                // Whoever else waits already waits no longer for it.
                if *hold_until == 0 {
                    *hold_until = sys::now() + HOLD_NANOS;
                }
            }
            if !stays {
                conn.end(source.1, Ok(Body::Done));
            }
        }
        self.serve_log(key);
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
                self.queue_pumps(key);
            } else {
                exec.failed = Some(no_resources());
                self.on_exit(key, 0);
            }
        }
    }
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
