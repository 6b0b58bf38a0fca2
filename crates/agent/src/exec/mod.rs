//! Running commands: how one is started, what is known about it, how all of it is killed.
//!
//! ```text
//! starting ──(reaper told the pid)──► running ──(main process reaped)──► exited
//!     │            (with a cgroup: at once)                                 │
//!     └── failed                    output read, 100 ms over or pipes closed ▼
//!                                                                        finished
//! ```
//! The steps from one to the next are made in `lifecycle`.

mod cgroup;
mod child;
mod descendants;
mod launch;
mod log;
mod oom;
mod reaper;
mod ring;
pub(crate) mod signal;
pub(crate) mod user;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use protocol::agent::{AgentError, Channel, ExecDone, ExecInfo};

pub use cgroup::FIRST_EXEC;
pub(crate) use cgroup::{Cgroup, Cgroups};
pub(crate) use descendants::{kill_below, parent_of};
pub(crate) use launch::{Launch, Started, Stdio, Where};
pub(crate) use log::{Log, Viewer};
pub(crate) use oom::{OomKills, raise};
pub(crate) use ring::Ring;

/// One output of a command.
#[derive(Default)]
pub(crate) struct Stream {
    pub pipe: Option<OwnedFd>,
    /// There may be something to read.
    pub ready: bool,
    /// No more edges come: read on until the end or until it is empty.
    pub last: bool,
    /// Stands in the run queue.
    pub queued: bool,
    /// Bytes that were in the pipe when the command exited: they arrive, however slow the client.
    pub owed: u64,
}

/// A connection and a call on it.
pub(crate) type Source = (u32, u32);

/// Input of a command.
pub(crate) struct Input {
    pub pipe: OwnedFd,
    /// Taken from connections, not yet by the pipe. Bounded by the windows of the few calls that
    /// may send to one command.
    pub pending: VecDeque<u8>,
    /// Whose bytes these are, in order.
    pub owed: VecDeque<(Source, usize)>,
    /// Calls that have sent all they had, and whether the input ends with it.
    pub leaving: Vec<(Source, bool)>,
    /// Close once nothing is pending.
    pub eof: bool,
}

impl Input {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe,
            pending: VecDeque::new(),
            owed: VecDeque::new(),
            leaving: Vec::new(),
            eof: false,
        }
    }

    /// Shares out that `used` bytes went away.
    pub(crate) fn pay(&mut self, mut used: usize) -> Vec<(Source, usize)> {
        let mut paid = Vec::new();
        while used > 0
            && let Some((source, owed)) = self.owed.front_mut()
        {
            let part = used.min(*owed);
            used -= part;
            *owed -= part;
            paid.push((*source, part));
            if *owed == 0 {
                self.owed.pop_front();
            }
        }
        paid
    }
}

/// A command that runs, or has exited and is not finished.
pub(crate) struct Exec {
    pub id: String,
    /// The call that started it, until its connection is lost.
    pub owner: Option<(u32, u32)>,
    /// The main process, until it is reaped.
    pub main: Option<i32>,
    /// The subreaper, until it is reaped, and what it tells on.
    pub reaper: Option<i32>,
    pub tells: Option<OwnedFd>,
    pub cgroup: Option<Cgroup>,
    pub out: Stream,
    pub err: Stream,
    pub input: Option<Input>,
    /// Memory of the child until its execve.
    pub launch: Option<Launch>,
    /// `out` and `input` are a terminal.
    pub terminal: bool,
    /// When it is killed, by CLOCK_BOOTTIME.
    pub deadline: Option<u64>,
    /// Its descendants are to be killed (again) then.
    pub kill_at: Option<u64>,
    /// Its `oom_score_adj` is to be raised then, and how often that was tried.
    pub oom_at: Option<(u64, u32)>,
    pub exit: Option<Exit>,
    /// OOM kills counted before it started.
    pub oom_base: Option<u64>,
    /// The wait for children that hold the pipes has ended.
    pub grace_over: bool,
    pub timed_out: bool,
    pub cancelled: bool,
    /// It never ran, for this reason.
    pub failed: Option<AgentError>,
    /// Said on stderr before the end.
    pub last_words: Option<&'static str>,
    /// Nothing of it is on the console.
    pub quiet: bool,
}

/// The end of the main process.
pub(crate) struct Exit {
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    pub at: u64,
    pub oom_killed: bool,
}

impl Exec {
    /// Whether its reaper has not told yet that it is there. Its first words may be quicker: they
    /// wait, so that the news of its start comes before them.
    pub(crate) fn is_unannounced(&self) -> bool {
        self.main.is_none() && self.tells.is_some()
    }

    pub(crate) fn stream(&mut self, channel: Channel) -> &mut Stream {
        match channel {
            Channel::Err => &mut self.err,
            Channel::Out | Channel::Input | Channel::Gap => &mut self.out,
        }
    }

    pub(crate) fn done(&self) -> ExecDone {
        let code = self.exit.as_ref().map_or(0, |e| e.code);
        ExecDone {
            exit_code: if self.timed_out { 124 } else { code },
            timed_out: self.timed_out,
            cancelled: self.cancelled,
            oom_killed: self.exit.as_ref().is_some_and(|e| e.oom_killed),
            signal: self.exit.as_ref().map_or(0, |e| e.signal),
        }
    }

    pub(crate) fn info(&self) -> ExecInfo {
        ExecInfo { exec_id: self.id.clone(), running: self.exit.is_none(), ..ExecInfo::default() }
    }

    /// When its time is up, unless it is ended already.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        let ended = self.timed_out || self.cancelled || self.exit.is_some();
        self.deadline.filter(|_| !ended)
    }

    /// When something has to be done about it.
    pub(crate) fn next_due(&self) -> Option<u64> {
        // After the grace only what is owed counts, and its coming wakes us by itself.
        let grace = self.exit.as_ref().map(|e| e.at + crate::lifecycle::GRACE_NANOS);
        let grace = grace.filter(|_| !self.grace_over);
        let times = [self.next_timeout(), self.kill_at, self.oom_at.map(|(at, _)| at), grace];
        times.into_iter().flatten().min()
    }

    /// The process group that signals go to.
    pub(crate) fn group(&self) -> Option<i32> {
        self.main.filter(|_| self.exit.is_none())
    }
}
