//! One call on a connection: what has arrived for it, and the right to send.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use protocol::agent::{Body, Channel, End, Event, Frame, Kind, MAX_PAYLOAD, WINDOW};
use types::{ErrorCode, Fault};

use super::connection::Shared;
use super::error::{GuestError, Lost};

/// How much must be consumed before more is granted: few credit frames, and never a dry pipe.
const GRANT: u32 = WINDOW / 4;
/// Bytes that tell of one gap; a piece of data holds whole ones.
const GAP: usize = 8;
/// Events of one call, in bytes: the entries of a directory are collected by their consumer.
const MAX_EVENTS: usize = 32 << 20;
/// Credit that an agent can pile up; more would only help it to overflow a counter.
const MAX_CREDIT: u32 = 1 << 30;

/// What a call yields.
#[derive(Debug)]
pub(crate) enum Item {
    Event(Event),
    Data(Channel, Bytes),
    End(Body),
}

/// The driver's end of a call.
pub(super) struct Call {
    pub id: u32,
    inner: Mutex<Inner>,
}

struct Inner {
    /// All data that waits, in order; `segments` says which channel it came on. Many tiny frames
    /// thus cost eight bytes each, not an allocation each.
    data: BytesMut,
    segments: VecDeque<(Channel, u32)>,
    /// What the agent may still send.
    window: u32,
    /// Consumed, and not yet granted again.
    consumed: u32,
    events: VecDeque<Vec<u8>>,
    event_bytes: usize,
    ending: Option<Ending>,
    ended: bool,
    /// What may still be sent to the agent.
    credit: u32,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Ending {
    /// The payload of the `End` frame.
    Said(Vec<u8>),
    TooMuch,
    Lost(Lost),
}

/// What a frame meant for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Open,
    /// It was the last one.
    Ended,
    /// The call ended here, since its answer grew too large; the agent has to be told.
    TooMuch,
}

/// A frame that this call cannot have got.
pub(super) struct Violation(pub &'static str);

impl Call {
    pub fn new(id: u32) -> Self {
        Self {
            id,
            inner: Mutex::new(Inner {
                data: BytesMut::new(),
                segments: VecDeque::new(),
                window: WINDOW,
                consumed: 0,
                events: VecDeque::new(),
                event_bytes: 0,
                ending: None,
                ended: false,
                credit: WINDOW,
                reader: None,
                writer: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes in a frame.
    pub fn take_in(&self, frame: &Frame<'_>) -> Result<Taken, Violation> {
        let mut inner = self.lock();
        match frame.kind {
            Kind::Data => inner.take_data(frame.channel, frame.payload)?,
            Kind::Eof => return Ok(Taken::Open),
            Kind::Credit => {
                let more = frame.credit().ok_or(Violation("credit without a number"))?;
                inner.credit = inner.credit.saturating_add(more).min(MAX_CREDIT);
                wake(&mut inner.writer);
                return Ok(Taken::Open);
            }
            Kind::Event => {
                inner.event_bytes += frame.payload.len();
                if inner.event_bytes > MAX_EVENTS {
                    inner.events.clear();
                    inner.ending = Some(Ending::TooMuch);
                } else {
                    inner.events.push_back(frame.payload.to_vec());
                }
            }
            Kind::End => inner.ending = Some(Ending::Said(frame.payload.to_vec())),
            Kind::Hello | Kind::Request | Kind::Cancel | Kind::Ping | Kind::Pong => {
                return Err(Violation("a frame that only servers send"));
            }
        }
        let taken = match inner.ending {
            None => Taken::Open,
            Some(Ending::TooMuch) => Taken::TooMuch,
            Some(Ending::Said(_) | Ending::Lost(_)) => Taken::Ended,
        };
        wake(&mut inner.reader);
        if taken != Taken::Open {
            wake(&mut inner.writer);
        }
        Ok(taken)
    }

    /// The connection is no more.
    pub fn lose(&self, lost: &Lost) {
        let mut inner = self.lock();
        inner.ending.get_or_insert_with(|| Ending::Lost(lost.clone()));
        wake(&mut inner.reader);
        wake(&mut inner.writer);
    }
}

impl Inner {
    fn take_data(&mut self, channel: Channel, payload: &[u8]) -> Result<(), Violation> {
        if channel == Channel::Input {
            return Err(Violation("data on a channel for input"));
        }
        if channel == Channel::Gap && !payload.len().is_multiple_of(GAP) {
            return Err(Violation("a torn gap"));
        }
        let len = u32::try_from(payload.len()).map_err(|_| Violation("data too long"))?;
        self.window =
            self.window.checked_sub(len).ok_or(Violation("more data than was granted"))?;
        if len == 0 {
            return Ok(());
        }
        self.data.extend_from_slice(payload);
        match self.segments.back_mut() {
            Some((last, total)) if *last == channel => *total += len,
            _ => self.segments.push_back((channel, len)),
        }
        Ok(())
    }

    /// The next piece of data, and how much to grant for what was consumed.
    fn next_data(&mut self) -> Option<(Channel, Bytes, Option<u32>)> {
        let (channel, left) = self.segments.front_mut()?;
        let channel = *channel;
        let len = (*left).min(MAX_PAYLOAD as u32);
        *left -= len;
        if *left == 0 {
            self.segments.pop_front();
        }
        let data = self.data.split_to(len as usize).freeze();
        self.consumed += len;
        let mut grant = None;
        if self.consumed >= GRANT && self.ending.is_none() {
            self.window += self.consumed;
            grant = Some(std::mem::take(&mut self.consumed));
        }
        Some((channel, data, grant))
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The caller's end of a call. Dropped before the end, it cancels the call.
pub(crate) struct CallHandle {
    pub(super) call: Arc<Call>,
    pub(super) connection: Arc<Shared>,
}

impl CallHandle {
    /// What comes next; after an `End` or an error nothing does.
    pub async fn next(&mut self) -> Result<Item, GuestError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, GuestError>> {
        let mut inner = self.call.lock();
        if let Some(text) = inner.events.pop_front() {
            drop(inner);
            return Poll::Ready(parse(&text).map(Item::Event));
        }
        if let Some((channel, data, grant)) = inner.next_data() {
            drop(inner);
            if let Some(bytes) = grant {
                self.connection.grant(self.call.id, bytes);
            }
            return Poll::Ready(Ok(Item::Data(channel, data)));
        }
        if inner.ending.is_none() {
            inner.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(inner.end())
    }

    /// Sends input as the agent grants credit. `false`: the call has ended.
    pub async fn send(&self, data: Bytes) -> Result<bool, GuestError> {
        self.input().send(data).await
    }

    /// No more input follows.
    pub fn finish_input(&self) {
        self.input().finish();
    }

    /// The right to send, for input that flows beside the output. One at a time.
    pub fn input(&self) -> Input {
        Input { call: Arc::clone(&self.call), connection: Arc::clone(&self.connection) }
    }
}

/// Sends a call's input, whoever reads its output.
pub(crate) struct Input {
    call: Arc<Call>,
    connection: Arc<Shared>,
}

impl Input {
    /// Sends `data` on the input channel, as credit allows. `false`: the call has ended meanwhile.
    pub async fn send(&self, mut data: Bytes) -> Result<bool, GuestError> {
        while !data.is_empty() {
            let granted = poll_fn(|cx| self.poll_credit(cx, data.len())).await;
            if granted == 0 {
                return Ok(false);
            }
            let piece = data.split_to(granted);
            self.connection.send_data(self.call.id, &piece).await.map_err(GuestError::Lost)?;
        }
        Ok(true)
    }

    /// No more input follows.
    pub fn finish(&self) {
        self.connection.small(Kind::Eof, self.call.id, &[]);
    }

    /// Takes credit for at most `wanted` bytes of one frame; zero if the call has ended.
    fn poll_credit(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let mut inner = self.call.lock();
        if inner.ending.is_some() {
            return Poll::Ready(0);
        }
        if inner.credit == 0 {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = inner.credit.min(wanted.min(MAX_PAYLOAD) as u32);
        inner.credit -= taken;
        Poll::Ready(taken as usize)
    }
}

impl Inner {
    fn end(&mut self) -> Result<Item, GuestError> {
        self.ended = true;
        match self.ending.as_ref() {
            Some(Ending::Said(text)) => match parse(text)? {
                End::Ok(body) => Ok(Item::End(body)),
                End::Err(error) => Err(GuestError::Agent(error)),
            },
            Some(Ending::TooMuch) => Err(GuestError::Fault(Fault::new(
                ErrorCode::TooLarge,
                "the answer of the sandbox is too large",
            ))),
            Some(Ending::Lost(lost)) => Err(GuestError::Lost(lost.clone())),
            None => Err(GuestError::Lost(Lost::Closed)),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, GuestError> {
    serde_json::from_slice(text).map_err(|e| GuestError::Lost(Lost::Protocol(e.to_string())))
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.call.lock().ended {
            self.connection.cancel(self.call.id);
        }
    }
}
