//! What goes on when: reading, slices of jobs, writing, timers.

use protocol::agent::{Channel, MAX_PAYLOAD};
use rustix::event::Timespec;
use rustix::event::epoll::EventFlags;

use crate::connection::{Broken, Work};
use crate::exec::{Exec, Log};
use crate::files::{Port, Step};
use crate::server::{Agent, Task, Token};
use crate::sys;

/// How long the news of a start waits for more to tell: most programs say something, or end, within
/// that, and nobody notices it of the others.
pub(crate) const HOLD_NANOS: u64 = 1_000_000;

impl Agent {
    pub(crate) fn on_socket(&mut self, id: u32, flags: EventFlags) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if flags.contains(EventFlags::OUT) {
            conn.blocked = false;
        }
        let end = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
        conn.hung_up |= flags.intersects(end);
        if flags.intersects(end | EventFlags::IN) {
            conn.readable = true;
            self.queue_conn(id);
        }
    }

    fn queue_conn(&mut self, id: u32) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.readable
            && !conn.queued
        {
            conn.queued = true;
            self.tasks.push_back(Task::Conn(id));
        }
    }

    /// Reads once and handles what came.
    pub(crate) fn read_conn(&mut self, id: u32) {
        self.scratch();
        let Self { conns, scratch, .. } = self;
        let Some(conn) = conns.get_mut(&id) else { return };
        conn.queued = false;
        // Whoever does not read its answers is not asked for more questions.
        if !conn.out.has_room() {
            conn.starved = true;
            return;
        }
        let done = conn.fill(scratch).and_then(|got| {
            self.touched += got;
            self.handle_frames(id)
        });
        match done {
            Ok(()) => self.queue_conn(id),
            Err(Broken) => self.close(id),
        }
    }

    fn handle_frames(&mut self, id: u32) -> Result<(), Broken> {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            if conn.closing {
                return Ok(());
            }
            let Some(frame) = conn.next_frame()? else { return Ok(()) };
            self.on_frame(id, &frame)?;
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.take_back(frame.payload);
            }
        }
    }

    /// Lets a call go on that had no room or credit.
    pub(crate) fn wake_call(&mut self, id: u32, call: u32) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(state) = conn.calls.get_mut(&call) else { return };
        match &state.work {
            Work::Exec(key) => {
                let key = *key;
                self.queue_pumps(key);
                self.settle(key);
            }
            Work::View(key) => {
                let key = *key;
                self.serve_log(key);
            }
            Work::Job(_) if !state.queued => {
                state.queued = true;
                self.tasks.push_back(Task::Job(id, call));
            }
            Work::Job(_) | Work::Write(_) | Work::Unpack(_) | Work::Feed(..) => {}
        }
    }

    pub(crate) fn run_job(&mut self, id: u32, call: u32) {
        let Self { conns, tree, tasks, touched, .. } = self;
        let Some(conn) = conns.get_mut(&id) else { return };
        let Some(state) = conn.calls.get_mut(&call) else { return };
        let Work::Job(job) = &mut state.work else { return };
        state.queued = false;
        let before = conn.out.len();
        let mut port = Port { out: &mut conn.out, call, credit: &mut state.credit };
        let step = job.step(tree, &mut port);
        *touched += conn.out.len() - before;
        match step {
            Step::Again => {
                state.queued = true;
                tasks.push_back(Task::Job(id, call));
            }
            Step::Wait => conn.starved |= !conn.out.has_room(),
            Step::Done(outcome) => {
                // What a job held counts as much as what it sent.
                *touched += MAX_PAYLOAD;
                conn.end(call, outcome);
            }
        }
    }

    /// Writes what waits, closes what is finished, and wakes what had no room.
    pub(crate) fn flush(&mut self) {
        let ids: Vec<u32> = self.conns.keys().copied().collect();
        let hold = self.hold_until > 0 && sys::now() < self.hold_until;
        self.hold_until = if hold { self.hold_until } else { 0 };
        let mut holding = false;
        for id in ids {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if hold && conn.may_wait() {
                holding = true;
                continue;
            }
            if !conn.blocked && !conn.out.is_empty() {
                conn.held = 0;
                match conn.out.flush(&conn.fd) {
                    Ok(taken) => conn.blocked = !taken,
                    Err(_) => {
                        self.close(id);
                        continue;
                    }
                }
            }
            if conn.out.is_empty() {
                conn.unsent.clear();
                if conn.closing {
                    self.close(id);
                    continue;
                }
            }
            if conn.starved && conn.out.is_low() {
                conn.starved = false;
                let calls: Vec<u32> = conn.calls.keys().copied().collect();
                for call in calls {
                    self.wake_call(id, call);
                }
                self.queue_conn(id);
            }
        }
        if !holding {
            self.hold_until = 0;
        }
    }

    /// How long what is held may still wait.
    pub(crate) fn held_for(&self) -> Option<Timespec> {
        let left = (self.hold_until > 0).then(|| self.hold_until.saturating_sub(sys::now()))?;
        Some(Timespec { tv_sec: 0, tv_nsec: left.min(HOLD_NANOS) as i64 })
    }

    /// Closes a connection. Its commands run on; its file operations are given up.
    pub(crate) fn close(&mut self, id: u32) {
        let Some(conn) = self.conns.remove(&id) else { return };
        if !conn.out.is_empty() {
            for info in conn.unsent {
                self.remember(info);
            }
        }
        for (call, state) in conn.calls {
            match state.work {
                Work::Exec(key) => self.disown(key),
                work => self.leave(id, call, &work),
            }
        }
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> u64 {
        let own = if self.deadline == 0 { u64::MAX } else { self.deadline };
        let logs = self.logs.values().filter_map(Log::lets_go_at);
        self.execs.values().filter_map(Exec::next_due).chain(logs).fold(own, u64::min)
    }

    pub(crate) fn on_timer(&mut self) {
        let now = sys::now();
        if self.deadline != 0 && self.deadline <= now {
            self.ending = Some("its time is up");
            return;
        }
        let due: Vec<u64> = self
            .execs
            .iter()
            .filter(|(_, exec)| exec.next_due().is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.on_exec_due(key, now);
        }
        let stalled = |log: &Log| log.lets_go_at().is_some_and(|at| at <= now);
        let stalled: Vec<u64> =
            self.logs.iter().filter(|(_, log)| stalled(log)).map(|(key, _)| *key).collect();
        for key in stalled {
            if let Some(log) = self.logs.get_mut(&key) {
                log.let_go();
            }
            self.queue_pumps(key);
        }
    }

    pub(crate) fn token_of(key: u64, channel: Channel) -> u64 {
        Token::Output(key, channel).number()
    }
}
