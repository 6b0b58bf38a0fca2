//! The loop: one epoll, one queue of things that can go on, nothing that waits elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use protocol::agent::{Channel, ExecInfo, Hello, Kind, Limits, PROTOCOL_VERSION, capability};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

use crate::Config;
use crate::connection::Conn;
use crate::console::Console;
use crate::exec::{Cgroups, Exec, Log, OomKills};
use crate::files::Tree;
use crate::sys;

/// Events taken from the kernel at once.
const EVENTS: usize = 64;
/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;
/// After so many bytes went through, an idle agent gives memory back.
const TRIM_AFTER: usize = 256 * 1024;
/// What an event is about: kind in the upper byte, number below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Signal,
    Timer,
    Tied,
    Console,
    Conn(u32),
    Output(u64, Channel),
    Input(u64),
    Reaper(u64),
}

/// Something that can go on without waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Read from a connection.
    Conn(u32),
    /// A slice of a job.
    Job(u32, u32),
    /// Read from a command.
    Pump(u64, Channel),
    /// Reap more.
    Reap,
    /// Read on from the console.
    Console,
    /// Throw away the output of what outlived its exec.
    Drain(u64),
}

pub(crate) struct Agent {
    pub epoll: OwnedFd,
    pub listener: OwnedFd,
    pub signal: OwnedFd,
    pub timer: OwnedFd,
    /// When the timer fires; `u64::MAX` if it doesn't.
    pub armed: u64,
    pub tied_to: Option<OwnedFd>,
    /// PID 1 of a namespace of its own.
    pub confined: bool,
    pub sandbox_id: String,
    pub env: Vec<String>,
    pub user: Option<String>,
    pub workdir: String,
    pub deadline: u64,
    pub oom_score_adj: i32,
    pub limits: Limits,
    pub tree: Tree,
    pub null: OwnedFd,
    pub console: Console,
    pub cgroups: Option<Cgroups>,
    pub oom: OomKills,
    pub conns: BTreeMap<u32, Conn>,
    pub next_conn: u32,
    pub execs: BTreeMap<u64, Exec>,
    pub next_exec: u64,
    /// Output of commands that belong to no call, by the key of their exec.
    pub logs: BTreeMap<u64, Log>,
    /// Keys of logs whose commands have ended, oldest first.
    pub ended: VecDeque<u64>,
    /// Ids of detached commands whose logs are gone.
    pub past: VecDeque<String>,
    /// Ended and not fetched, oldest first.
    pub finished: VecDeque<ExecInfo>,
    /// Pipes of finished execs that living children hold, by token.
    pub drains: BTreeMap<u64, OwnedFd>,
    pub tasks: VecDeque<Task>,
    pub scratch: Vec<u8>,
    pub stacks: Vec<Vec<u8>>,
    /// Bytes that went through since memory was given back.
    pub touched: usize,
    /// Until when the news of a start may wait for more to tell; 0: none waits.
    pub hold_until: u64,
    /// Why to end.
    pub ending: Option<&'static str>,
}

pub(crate) fn run(config: Config) -> i32 {
    match Agent::new(config) {
        Ok(mut agent) => {
            agent.serve();
            agent.finish();
            0
        }
        Err(_) => 1,
    }
}

impl Token {
    pub(crate) fn number(self) -> u64 {
        let (kind, n) = match self {
            Self::Listener => (0, 0),
            Self::Signal => (1, 0),
            Self::Timer => (2, 0),
            Self::Tied => (3, 0),
            Self::Console => (4, 0),
            Self::Conn(id) => (5, u64::from(id)),
            Self::Output(key, Channel::Out | Channel::Input | Channel::Gap) => (6, key),
            Self::Output(key, Channel::Err) => (7, key),
            Self::Input(key) => (8, key),
            Self::Reaper(key) => (9, key),
        };
        kind << 56 | n
    }

    fn parse(number: u64) -> Option<Self> {
        let n = number & (u64::MAX >> 8);
        Some(match number >> 56 {
            0 => Self::Listener,
            1 => Self::Signal,
            2 => Self::Timer,
            3 => Self::Tied,
            4 => Self::Console,
            5 => Self::Conn(u32::try_from(n).ok()?),
            6 => Self::Output(n, Channel::Out),
            7 => Self::Output(n, Channel::Err),
            8 => Self::Input(n),
            9 => Self::Reaper(n),
            _ => return None,
        })
    }
}

impl Agent {
    /// Watches a descriptor; each change of state is told once.
    pub(crate) fn watch(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        let flags = match token {
            Token::Input(_) => EventFlags::OUT,
            Token::Conn(_) => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP,
            Token::Listener
            | Token::Signal
            | Token::Timer
            | Token::Tied
            | Token::Console
            | Token::Output(..)
            | Token::Reaper(_) => EventFlags::IN,
        };
        add(&self.epoll, fd, token, flags | EventFlags::ET)
    }

    fn serve(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while self.ending.is_none() {
            self.arm();
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = match self.tasks.is_empty() {
                true => self.held_for(),
                false => Some(at_once),
            };
            if timeout.is_none() {
                self.give_memory_back();
            }
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                if let Some(token) = Token::parse(event.data.u64()) {
                    self.on_event(token, event.flags);
                }
            }
            for _ in 0..self.tasks.len() {
                if let Some(task) = self.tasks.pop_front() {
                    self.run_task(task);
                }
            }
            self.flush();
        }
    }

    fn on_event(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signal => self.tasks.push_back(Task::Reap),
            Token::Timer => {
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                self.armed = u64::MAX;
                self.on_timer();
            }
            Token::Tied => self.on_tied(),
            Token::Console => self.tasks.push_back(Task::Console),
            Token::Conn(id) => self.on_socket(id, flags),
            Token::Output(key, channel) => {
                let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                self.on_output(key, channel, hung_up);
            }
            Token::Input(key) => self.feed(key),
            Token::Reaper(key) => self.on_reaper_tells(key),
        }
    }

    fn run_task(&mut self, task: Task) {
        match task {
            Task::Conn(id) => self.read_conn(id),
            Task::Job(id, call) => self.run_job(id, call),
            Task::Pump(key, channel) => self.pump(key, channel),
            Task::Reap => self.reap(),
            Task::Console => {
                if self.console.drain() {
                    self.tasks.push_back(Task::Console);
                }
            }
            Task::Drain(token) => self.drain(token),
        }
    }

    fn accept(&mut self) {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => self.admit(fd),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// Greets a new connection; one too many is closed.
    fn admit(&mut self, fd: OwnedFd) {
        if self.conns.len() >= self.limits.max_connections as usize {
            return;
        }
        let id = self.next_conn;
        self.next_conn = self.next_conn.wrapping_add(1);
        if self.watch(&fd, Token::Conn(id)).is_err() {
            return;
        }
        let mut conn = Conn::new(fd);
        conn.out.json(Kind::Hello, 0, &self.hello());
        self.conns.insert(id, conn);
    }

    fn hello(&self) -> Hello {
        let mut capabilities: Vec<String> = [
            capability::EXEC,
            capability::FILES,
            capability::LOGS,
            capability::READ_RANGE,
            capability::ATTACH,
            capability::TTY,
            capability::USER,
            capability::TREES,
        ]
        .map(Into::into)
        .into();
        if self.cgroups.is_some() {
            capabilities.push(capability::EXEC_CGROUP.into());
        }
        Hello {
            version: PROTOCOL_VERSION,
            min_version: 1,
            capabilities,
            sandbox_id: self.sandbox_id.clone(),
            build: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn on_tied(&mut self) {
        let Some(tied) = &self.tied_to else { return };
        loop {
            match rustix::io::read(tied, &mut [0; 64]) {
                Ok(0) => return self.ending = Some("its owner has gone"),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.ending = Some("its owner has gone"),
            }
        }
    }

    /// Sets the timer to the next thing that is due. It may fire too early, never too late; so
    /// deadlines that come and go behind an earlier one cost nothing.
    fn arm(&mut self) {
        let next = self.next_due();
        if next < self.armed {
            let at = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: (next / 1_000_000_000) as i64,
                    // 0 would switch the timer off.
                    tv_nsec: (next % 1_000_000_000).max(1) as i64,
                },
            };
            if timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &at).is_ok() {
                self.armed = next;
            }
        }
    }

    /// A buffer to read into.
    pub(crate) fn scratch(&mut self) -> &mut Vec<u8> {
        if self.scratch.capacity() == 0 {
            self.scratch = Vec::with_capacity(SCRATCH);
        }
        &mut self.scratch
    }

    /// An idle agent is small again, however much went through it.
    fn give_memory_back(&mut self) {
        // In the middle of a call it would all be touched again at once.
        let idle = self.execs.is_empty() && self.conns.values().all(|c| c.calls.is_empty());
        if self.touched >= TRIM_AFTER && idle {
            self.touched = 0;
            self.scratch = Vec::new();
            self.conns.values_mut().for_each(|conn| {
                conn.shrink();
            });
            sys::trim();
        }
    }
}

pub(crate) fn add(
    epoll: &OwnedFd,
    fd: impl AsFd,
    token: Token,
    flags: EventFlags,
) -> Result<(), Errno> {
    epoll::add(epoll, fd, EventData::new_u64(token.number()), flags)
}
