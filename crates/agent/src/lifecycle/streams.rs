//! Output of a command, as far as there is credit and room.

use protocol::agent::{Channel, MAX_PAYLOAD};
use rustix::io::Errno;

use crate::server::{Agent, Task};

/// Pipes of ended commands that living children may still write into.
const DRAINS: usize = 64;

impl Agent {
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
        if let Some(exec) = self.execs.get_mut(&key)
            && exec.is_unannounced()
        {
            exec.stream(channel).queued = false;
            return;
        }
        if self.logs.contains_key(&key) {
            return self.pump_log(key, channel);
        }
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
                (scratch.capacity(), got)
            }
        };
        self.after_read(key, channel, got, max);
        self.settle(key);
    }

    /// What a read of at most `max` bytes says about the output; goes on with it.
    pub(super) fn after_read(
        &mut self,
        key: u64,
        channel: Channel,
        got: Result<usize, Errno>,
        max: usize,
    ) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let lives_on = exec.terminal && exec.exit.is_none();
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
            // Nobody has the terminal open. A program that ends closes it a moment before: were our
            // side closed now, the kernel would hang it up and kill that program.
            Err(Errno::IO) if lives_on => {
                (stream.ready, stream.last) = (false, false);
                stream.owed = 0;
            }
            Err(_) => stream.pipe = None,
        }
        self.queue_pumps(key);
    }

    /// Children that outlived their exec hold this pipe. Were it closed, their next word would
    /// kill them; so it is read, and thrown away.
    pub(super) fn keep_draining(&mut self, token: u64, pipe: std::os::fd::OwnedFd) {
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
