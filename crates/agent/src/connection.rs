//! One connection: its frames in, its frames out, and the calls open on it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use protocol::agent::{Body, Channel, Decoder, End, ExecInfo, HEADER_LEN, Kind, WINDOW};
use rustix::io::Errno;

use crate::error::Outcome;
use crate::files::{Job, UnpackJob, WriteJob};
use crate::outbox::Outbox;

/// Calls open at once on a connection; more are turned away, not queued.
pub(crate) const MAX_CALLS: usize = 1024;
/// Credit is given back in pieces of this size: a quarter of the window, so that a sender at full
/// speed never waits for it.
const GRANT: u32 = WINDOW / 4;
/// A decoder that took in more than this is replaced once it is empty.
const KEEP: usize = 16 * 1024;

/// What a call does.
pub(crate) enum Work {
    /// Runs the exec with this key.
    Exec(u64),
    /// Looks at the log of the exec with this key.
    View(u64),
    /// Sends input to it; with `true`, its last.
    Feed(u64, bool),
    Write(Box<WriteJob>),
    Unpack(Box<UnpackJob>),
    /// Something that proceeds in slices.
    Job(Box<Job>),
}

pub(crate) struct Call {
    pub work: Work,
    /// Bytes that may still be sent to the server.
    pub credit: u64,
    /// Bytes that the server may still send.
    window: u32,
    /// Bytes taken in and not yet given back as credit.
    consumed: u32,
    /// Whether the job stands in the run queue.
    pub queued: bool,
}

impl Call {
    pub(crate) fn new(work: Work) -> Self {
        Self { work, credit: u64::from(WINDOW), window: WINDOW, consumed: 0, queued: false }
    }

    /// Takes note of `len` bytes that came in; `false` if the server broke its window.
    pub(crate) fn take(&mut self, len: usize) -> bool {
        match u32::try_from(len).ok().and_then(|len| self.window.checked_sub(len)) {
            Some(left) => {
                self.window = left;
                true
            }
            None => false,
        }
    }
}

pub(crate) struct Conn {
    pub fd: OwnedFd,
    decoder: Decoder,
    /// Bytes in the decoder that are not yet frames.
    pending: usize,
    /// The most that was pending since the decoder was made.
    grown: usize,
    /// Empty: room for the payload of the next frame.
    payload: Vec<u8>,
    pub out: Outbox,
    pub calls: BTreeMap<u32, Call>,
    /// Whether the server's Hello has come.
    pub greeted: bool,
    /// More may be read.
    pub readable: bool,
    pub queued: bool,
    /// The other end has closed: no edge tells when what it sent before has been read.
    pub hung_up: bool,
    /// The socket takes no more for now.
    pub blocked: bool,
    /// Some producer was turned away because the outbox was full.
    pub starved: bool,
    /// To be closed once the outbox is empty.
    pub closing: bool,
    /// What waits, if it is so many bytes, may wait for what follows: see [`Conn::may_wait`].
    pub held: usize,
    /// Ends of execs that may not have left yet; if the connection breaks they count as not
    /// fetched.
    pub unsent: Vec<ExecInfo>,
}

/// A frame, owned: handling it needs the whole agent.
pub(crate) struct Incoming {
    pub kind: Kind,
    pub channel: Channel,
    pub call: u32,
    pub payload: Vec<u8>,
}

/// Why a connection has to be closed.
pub(crate) struct Broken;

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            decoder: Decoder::new(),
            pending: 0,
            grown: 0,
            payload: Vec::new(),
            out: Outbox::default(),
            calls: BTreeMap::new(),
            greeted: false,
            readable: false,
            queued: false,
            hung_up: false,
            blocked: false,
            starved: false,
            closing: false,
            held: 0,
            unsent: Vec::new(),
        }
    }

    /// The news that a command started may wait for its first words, or its end: one write and one
    /// waking of the server less, where that comes within moments.
    pub(crate) fn may_wait(&self) -> bool {
        self.held > 0 && self.out.len() == self.held
    }

    /// Reads once. `Ok(0)` means nothing is there now.
    pub(crate) fn fill(&mut self, scratch: &mut Vec<u8>) -> Result<usize, Broken> {
        scratch.clear();
        match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(scratch)) {
            Ok(0) => Err(Broken),
            Ok(n) => {
                self.decoder.feed(&scratch[..n]);
                self.pending += n;
                self.grown = self.grown.max(self.pending);
                // A short read emptied the socket; the next bytes raise a new edge.
                self.readable = self.hung_up || n == scratch.capacity();
                Ok(n)
            }
            Err(Errno::INTR) => Ok(1),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(0)
            }
            Err(_) => Err(Broken),
        }
    }

    /// The next whole frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Incoming>, Broken> {
        match self.decoder.next() {
            Ok(Some(frame)) => {
                self.pending = self.pending.saturating_sub(HEADER_LEN + frame.payload.len());
                let mut payload = std::mem::take(&mut self.payload);
                payload.extend_from_slice(frame.payload);
                let (kind, channel, call) = (frame.kind, frame.channel, frame.call);
                Ok(Some(Incoming { kind, channel, call, payload }))
            }
            Ok(None) => Ok(None),
            Err(_) => Err(Broken),
        }
    }

    /// The memory of a payload is used for the next one: fresh memory is dear.
    pub(crate) fn take_back(&mut self, mut payload: Vec<u8>) {
        payload.clear();
        self.payload = payload;
    }

    /// Closes a call with what became of it.
    pub(crate) fn end(&mut self, call: u32, outcome: Outcome<Body>) {
        self.calls.remove(&call);
        let end = match outcome {
            Ok(body) => End::Ok(body),
            Err(error) => End::Err(error),
        };
        self.out.json(Kind::End, call, &end);
    }

    /// Gives credit back for `len` bytes that were used up.
    pub(crate) fn consumed(&mut self, call: u32, len: usize) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        state.consumed = state.consumed.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if state.consumed >= GRANT {
            let grant = std::mem::take(&mut state.consumed);
            state.window += grant;
            self.out.credit(call, grant);
        }
    }

    /// Gives memory back when nothing goes on. Says whether there was much of it.
    pub(crate) fn shrink(&mut self) -> bool {
        if !self.calls.is_empty() {
            return false;
        }
        let mut large = self.out.shrink() || self.payload.capacity() > KEEP;
        self.payload = Vec::new();
        if self.pending == 0 && self.grown > KEEP {
            self.decoder = Decoder::new();
            self.grown = 0;
            large = true;
        }
        large
    }
}
