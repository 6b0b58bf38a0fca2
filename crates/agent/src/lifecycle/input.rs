//! Input of a command: from one call or several, as far as its pipe or terminal takes it.

use protocol::agent::{AgentErrorCode, Body};
use rustix::io::Errno;

use crate::connection::Work;
use crate::error::fail;
use crate::exec::{Input, Source};
use crate::server::Agent;

/// What is typed for "no more" at a terminal.
const END_OF_INPUT: &[u8] = b"\x04";

impl Agent {
    /// Takes input for a command from a call.
    pub(crate) fn take_input(&mut self, key: u64, from: Source, bytes: &[u8]) {
        let ended = !self.execs.contains_key(&key);
        let input = self.execs.get_mut(&key).and_then(|e| e.input.as_mut());
        match input.filter(|input| !input.eof) {
            Some(input) => {
                input.pending.extend(bytes);
                match input.owed.back_mut() {
                    Some((source, n)) if *source == from => *n += bytes.len(),
                    Some(_) | None => input.owed.push_back((from, bytes.len())),
                }
                self.touched += bytes.len();
                self.feed(key);
            }
            // It does not read any more: what still comes is thrown away, the sender not stopped.
            None => {
                self.give_credit(from, bytes.len());
                if ended {
                    self.turn_away_feed(from);
                }
            }
        }
    }

    /// The call that started a command has no more input for it.
    pub(crate) fn end_input(&mut self, key: u64) {
        if let Some(input) = self.execs.get_mut(&key).and_then(|e| e.input.as_mut()) {
            input.eof = true;
            self.feed(key);
        }
    }

    /// A call that sends input has sent it all: it ends once the command has taken it.
    pub(crate) fn end_feed(&mut self, key: u64, from: Source, close: bool) {
        let ended = !self.execs.contains_key(&key);
        match self.execs.get_mut(&key).and_then(|e| e.input.as_mut()) {
            Some(input) => {
                input.leaving.push((from, close));
                self.feed(key);
            }
            None if !ended => self.turn_away(from),
            // It took all of it and ended before this word came: see `end_feeds`.
            None => {
                if let Some(conn) = self.conns.get_mut(&from.0) {
                    conn.end(from.1, Ok(Body::Done));
                }
            }
        }
    }

    /// Writes pending input, as far as it is taken.
    pub(crate) fn feed(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let Some(input) = &mut exec.input else { return };
        let mut used = 0;
        let mut open = loop {
            if input.pending.is_empty() {
                break true;
            }
            match rustix::io::write(&input.pipe, input.pending.as_slices().0) {
                Ok(n) => {
                    input.pending.drain(..n);
                    used += n;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(_) => break false,
            }
        };
        let credits = input.pay(used);
        let mut through = Vec::new();
        let (owed, eof) = (&input.owed, &mut input.eof);
        input.leaving.retain(|(source, close)| {
            let waits = owed.iter().any(|(s, _)| s == source);
            if !waits {
                *eof |= *close;
                through.push(*source);
            }
            waits
        });
        if open && input.eof && input.pending.is_empty() {
            if exec.terminal {
                let _ = rustix::io::write(&input.pipe, END_OF_INPUT);
            }
            open = false;
        } else if input.pending.is_empty() {
            input.pending.shrink_to_fit();
        }
        let refused = if open { Vec::new() } else { self.close_input(key) };
        for (source, bytes) in credits {
            self.give_credit(source, bytes);
        }
        for (id, call) in through {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.end(call, Ok(Body::Done));
            }
        }
        refused.into_iter().for_each(|source| self.turn_away(source));
    }

    /// Closes a command's input. Whoever had sent all he had and waits is returned.
    fn close_input(&mut self, key: u64) -> Vec<Source> {
        let Some(mut input) = self.execs.get_mut(&key).and_then(|e| e.input.take()) else {
            return Vec::new();
        };
        let left = input.pending.len();
        for (source, bytes) in input.pay(left) {
            self.give_credit(source, bytes);
        }
        input.leaving.into_iter().map(|(source, _)| source).collect()
    }

    /// The command is no more: calls that send to it end, but for those of which it took all that
    /// came. They may have no more to send, and hear so when they say it.
    pub(super) fn end_feeds(&mut self, key: u64, input: Option<&Input>) {
        let took = |from: Source| input.is_some_and(|i| i.owed.iter().all(|(s, _)| *s != from));
        let of = |work: &Work| matches!(work, Work::Feed(of, _) if *of == key);
        let calls: Vec<Source> = self
            .conns
            .iter()
            .flat_map(|(id, conn)| conn.calls.iter().map(move |(call, state)| (*id, *call, state)))
            .filter(|(_, _, state)| of(&state.work))
            .map(|(id, call, _)| (id, call))
            .collect();
        calls.into_iter().filter(|from| !took(*from)).for_each(|source| self.turn_away(source));
    }

    fn turn_away_feed(&mut self, (id, call): Source) {
        let calls = self.conns.get(&id).map(|conn| &conn.calls);
        if calls.and_then(|c| c.get(&call)).is_some_and(|c| matches!(c.work, Work::Feed(..))) {
            self.turn_away((id, call));
        }
    }

    fn turn_away(&mut self, (id, call): Source) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.calls.contains_key(&call)
        {
            let text = "the command reads no more input";
            conn.end(call, Err(fail(AgentErrorCode::Conflict, text)));
        }
    }

    fn give_credit(&mut self, (id, call): Source, bytes: usize) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.consumed(call, bytes);
        }
    }
}
