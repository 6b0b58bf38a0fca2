//! Commands that belong to no call: their logs, those who look at them, and what they are told.

use protocol::agent::{AgentErrorCode, Body, Channel, Event, Kind, TtySize};

use super::NO_COMMAND;
use crate::connection::{Call, Work};
use crate::error::{Outcome, bad_request, fail};
use crate::exec::{Exec, Log, Viewer};
use crate::server::Agent;
use crate::sys;

/// Calls that look at one log.
const VIEWERS: usize = 16;
/// Calls that send input to one command at once.
const WRITERS: usize = 4;
/// Logs of ended commands that are kept, and what they hold together.
const LOGS: usize = 64;
const LOG_BYTES: usize = 4 << 20;
/// Ids of ended commands that are still known to be used.
const IDS: usize = 1024;

impl Agent {
    /// Whether a command of that id runs or ran.
    pub(crate) fn is_known(&self, exec_id: &str) -> bool {
        self.execs.values().any(|e| e.id == exec_id)
            || self.logs.values().any(|l| l.id == exec_id)
            || self.past.iter().any(|id| id == exec_id)
    }

    /// The running command of that id.
    pub(crate) fn running(&self, exec_id: &str) -> Outcome<(u64, &Exec)> {
        let found = self.execs.iter().find(|(_, e)| e.id == exec_id && e.exit.is_none());
        found.map(|(key, exec)| (*key, exec)).ok_or_else(|| {
            let text = if self.is_known(exec_id) { "the command has ended" } else { NO_COMMAND };
            let known = self.is_known(exec_id);
            let code = if known { AgentErrorCode::Conflict } else { AgentErrorCode::NoSuchExec };
            fail(code, text)
        })
    }

    pub(crate) fn attach(
        &mut self,
        id: u32,
        call: u32,
        exec_id: &str,
        offset: u64,
        how: How,
    ) -> Outcome<Option<Body>> {
        let found = self.logs.iter_mut().find(|(_, log)| log.id == exec_id);
        let Some((key, log)) = found else {
            return Err(fail(AgentErrorCode::NoSuchExec, NO_COMMAND));
        };
        let key = *key;
        if offset > log.ring.total() {
            return Err(bad_request("the output has not come so far"));
        }
        if log.viewers.len() >= VIEWERS {
            let text = "too many look at that command";
            return Err(fail(AgentErrorCode::NoResources, text));
        }
        log.viewers.push(Viewer {
            conn: id,
            call,
            pos: offset,
            until: (!how.follow).then(|| log.ring.total()),
            holds: how.hold && how.follow && !how.quiet,
            quiet: how.quiet,
        });
        let total = log.ring.total();
        self.open_call(id, call, Work::View(key));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.out.json(Kind::Event, call, &Event::Attached { total });
        }
        self.serve_log(key);
        Ok(None)
    }

    /// Hands on what the viewers of a log can take; then more may be read.
    pub(crate) fn serve_log(&mut self, key: u64) {
        let Self { logs, conns, .. } = self;
        if let Some(log) = logs.get_mut(&key) {
            log.serve(conns);
        }
        self.queue_pumps(key);
    }

    /// A call that looked at a log, or sent input, is no more.
    pub(crate) fn leave(&mut self, id: u32, call: u32, work: &Work) {
        match work {
            Work::View(key) => {
                if let Some(log) = self.logs.get_mut(key) {
                    log.forget_viewer(id, call);
                }
                self.queue_pumps(*key);
            }
            Work::Feed(..) | Work::Exec(_) | Work::Write(_) | Work::Unpack(_) | Work::Job(_) => {}
        }
    }

    pub(crate) fn open_input(
        &mut self,
        id: u32,
        call: u32,
        exec_id: &str,
        close: bool,
    ) -> Outcome<Option<Body>> {
        let (key, exec) = self.running(exec_id)?;
        if exec.input.as_ref().is_none_or(|input| input.eof) {
            return Err(fail(AgentErrorCode::Conflict, "the command's stdin is closed"));
        }
        let feeds = |call: &&Call| matches!(call.work, Work::Feed(of, _) if of == key);
        if self.conns.values().flat_map(|c| c.calls.values()).filter(feeds).count() >= WRITERS {
            let text = "too many write to that command at once";
            return Err(fail(AgentErrorCode::NoResources, text));
        }
        self.open_call(id, call, Work::Feed(key, close));
        Ok(None)
    }

    pub(crate) fn resize(&mut self, exec_id: &str, size: TtySize) -> Outcome<()> {
        let (_, exec) = self.running(exec_id)?;
        match &exec.out.pipe {
            Some(terminal) if exec.terminal => sys::resize(terminal, size.cols, size.rows)
                .map_err(|_| fail(AgentErrorCode::Internal, "the terminal cannot be resized")),
            Some(_) | None => Err(bad_request("the command has no terminal")),
        }
    }

    /// Kills a command and all that descends from it.
    pub(crate) fn kill_whole(&mut self, exec_id: &str) -> Outcome<()> {
        let (key, _) = self.running(exec_id)?;
        self.kill_exec(key);
        self.settle(key);
        Ok(())
    }

    /// Keeps the log of a command that has ended, and lets go of older ones.
    pub(super) fn keep_log(&mut self, key: u64) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.ring.close();
        }
        self.serve_log(key);
        self.ended.push_back(key);
        let mut held: usize = self.ended.iter().filter_map(|k| self.logs.get(k)).map(cost).sum();
        let mut at = 0;
        while (self.ended.len() > LOGS || held > LOG_BYTES) && at < self.ended.len() {
            let old = self.ended[at];
            if self.logs.get(&old).is_some_and(|log| !log.viewers.is_empty()) {
                at += 1;
                continue;
            }
            self.ended.remove(at);
            if let Some(log) = self.logs.remove(&old) {
                held -= cost(&log);
                self.past.push_back(log.id);
            }
        }
        while self.past.len() > IDS {
            self.past.pop_front();
        }
    }

    /// The output of a command whose call is lost goes into a log from now on.
    pub(super) fn begin_log(&mut self, key: u64) {
        let limit = self.limits.ring_bytes as usize;
        if let Some(exec) = self.execs.get(&key) {
            self.logs.entry(key).or_insert_with(|| Log::new(exec.id.clone(), limit));
        }
    }

    /// Reads once from an output into its log.
    pub(super) fn pump_log(&mut self, key: u64, channel: Channel) {
        self.scratch();
        let Self { execs, logs, scratch, .. } = self;
        let (Some(exec), Some(log)) = (execs.get_mut(&key), logs.get_mut(&key)) else { return };
        let cancelled = exec.cancelled;
        let stream = exec.stream(channel);
        stream.queued = false;
        let Some(pipe) = &stream.pipe else { return };
        if !cancelled && !log.takes(sys::now()) {
            return;
        }
        scratch.clear();
        let max = scratch.capacity();
        let got = rustix::io::read(pipe, rustix::buffer::spare_capacity(scratch));
        if got.is_ok() && !cancelled {
            log.ring.push(channel, scratch);
        }
        self.after_read(key, channel, got, max);
        self.serve_log(key);
        self.settle(key);
    }
}

/// How a log is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub follow: bool,
    pub hold: bool,
    pub quiet: bool,
}

fn cost(log: &Log) -> usize {
    log.ring.cost()
}
