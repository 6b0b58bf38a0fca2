//! Moves bytes between a stream and the calls on it: one task per open connection.
//!
//! It never waits for a consumer: data goes into the call's own bounded buffer, and an agent that
//! sends more than it was granted is cut off.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use protocol::agent::{Decoder, Frame, Hello, Kind};
use providers::AgentStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::call::{Taken, Violation};
use super::connection::Shared;
use super::error::Lost;

/// The first size of the read buffer: most answers fit, and an idle connection stays small.
const READ_MIN: usize = 4 << 10;
const READ_MAX: usize = 128 << 10;
/// How often silence and idleness are looked at, at most.
const TICK: Duration = Duration::from_secs(10);
/// Silent ticks, while calls wait, after which the agent is asked whether it lives.
const PING_AFTER: u32 = 2;
/// Silent ticks after which it is taken for lost. An agent busy with a huge delete gets a minute.
const LOST_AFTER: u32 = 8;
/// Idle ticks after which the connection is closed; a tick is at most a third of the idle time.
const IDLE_TICKS: u32 = 3;

struct Driver {
    stream: AgentStream,
    shared: Arc<Shared>,
    hello: Option<oneshot::Sender<Hello>>,
    decoder: Decoder,
    read: Vec<u8>,
    write: Vec<u8>,
    written: usize,
    tick: Interval,
    /// Whether anything was read since the last tick.
    heard: bool,
    quiet_ticks: u32,
}

/// Runs a connection to its end.
pub(super) async fn drive(
    stream: AgentStream,
    shared: Arc<Shared>,
    hello: oneshot::Sender<Hello>,
    idle: Duration,
) {
    let every = TICK.min(idle / IDLE_TICKS).max(Duration::from_millis(1));
    let mut tick = interval_at(tokio::time::Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut driver = Driver {
        stream,
        shared,
        hello: Some(hello),
        decoder: Decoder::new(),
        read: vec![0; READ_MIN],
        write: Vec::new(),
        written: 0,
        tick,
        heard: false,
        quiet_ticks: 0,
    };
    let lost = poll_fn(|cx| driver.poll(cx)).await;
    tracing::debug!(reason = %lost, "agent connection ended");
    driver.shared.close(lost);
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        loop {
            // Reading may make something to write (a pong, credit), writing may make the agent
            // answer at once: go on until neither moves.
            let wrote = self.poll_write(cx);
            if let Poll::Ready(Err(lost)) = wrote {
                return Poll::Ready(lost);
            }
            let read = self.poll_read(cx);
            if let Poll::Ready(Err(lost)) = read {
                return Poll::Ready(lost);
            }
            if wrote.is_pending() && read.is_pending() {
                break;
            }
        }
        while self.tick.poll_tick(cx).is_ready() {
            if let Some(lost) = self.on_tick() {
                return Poll::Ready(lost);
            }
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if let Some(lost) = self.shared.take_out(cx, &mut self.write) {
            return Poll::Ready(Err(lost));
        }
        if self.write.is_empty() {
            return Poll::Pending;
        }
        let left = &self.write[self.written..];
        let n = match ready!(Pin::new(&mut self.stream).poll_write(cx, left)) {
            Ok(0) => return Poll::Ready(Err(Lost::Closed)),
            Ok(n) => n,
            Err(e) => return Poll::Ready(Err(Lost::Io(e.to_string()))),
        };
        self.written += n;
        if self.written == self.write.len() {
            self.written = 0;
            // Kept as large as it is: fresh memory is dear. See `on_tick`.
            self.write.clear();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut buf = ReadBuf::new(&mut self.read);
        if let Err(e) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            return Poll::Ready(Err(Lost::Io(e.to_string())));
        }
        let n = buf.filled().len();
        if n == 0 {
            return Poll::Ready(Err(Lost::Closed));
        }
        self.heard = true;
        self.decoder.feed(&self.read[..n]);
        if n == self.read.len() && n < READ_MAX {
            self.read.resize(n * 4, 0);
        }
        loop {
            match self.decoder.next() {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(frame)) => {
                    if let Err(why) = dispatch(&self.shared, &mut self.hello, &frame) {
                        return Poll::Ready(Err(Lost::Protocol(why.0.to_owned())));
                    }
                }
                Err(e) => return Poll::Ready(Err(Lost::Protocol(e.to_string()))),
            }
        }
    }

    fn on_tick(&mut self) -> Option<Lost> {
        let idle = {
            let mut state = self.shared.lock();
            let idle = state.calls.is_empty() && state.out.is_empty() && self.write.is_empty();
            if idle && self.write.capacity().max(state.out.capacity()) > READ_MAX {
                (self.write, state.out) = (Vec::new(), Vec::new());
            }
            idle
        };
        if std::mem::take(&mut self.heard) {
            self.quiet_ticks = 0;
            return None;
        }
        self.quiet_ticks += 1;
        match (idle, self.quiet_ticks) {
            (true, n) if n >= IDLE_TICKS => self.close_if_idle(),
            (true, _) => None,
            (false, n) if n >= LOST_AFTER => Some(Lost::Silent),
            (false, n) => {
                if n >= PING_AFTER {
                    self.shared.small(Kind::Ping, 0, b"alive?");
                }
                None
            }
        }
    }

    /// Marks it closed under the lock that calls are opened under: none can slip in between.
    fn close_if_idle(&mut self) -> Option<Lost> {
        let mut state = self.shared.lock();
        if !state.calls.is_empty() || !state.out.is_empty() {
            return None;
        }
        state.closed.get_or_insert(Lost::HungUp);
        state.closed.clone()
    }
}

fn dispatch(
    shared: &Arc<Shared>,
    hello: &mut Option<oneshot::Sender<Hello>>,
    frame: &Frame<'_>,
) -> Result<(), Violation> {
    match frame.kind {
        Kind::Hello => {
            let tell = hello.take().ok_or(Violation("a second hello"))?;
            let said =
                serde_json::from_slice(frame.payload).map_err(|_| Violation("a broken hello"))?;
            // Nobody waits any more: the guest hung up, and says so to the driver.
            let _ = tell.send(said);
            Ok(())
        }
        _ if hello.is_some() => Err(Violation("no hello")),
        Kind::Pong => Ok(()),
        Kind::Ping if frame.payload.len() <= 64 => {
            shared.small(Kind::Pong, 0, frame.payload);
            Ok(())
        }
        Kind::Request | Kind::Cancel | Kind::Ping => {
            Err(Violation("a frame that only servers send"))
        }
        Kind::Data | Kind::Eof | Kind::Credit | Kind::Event | Kind::End => to_call(shared, frame),
    }
}

/// Frames for a call that was given up, or never was, are dropped: they cost nothing.
fn to_call(shared: &Arc<Shared>, frame: &Frame<'_>) -> Result<(), Violation> {
    let Some(call) = shared.lock().calls.get(&frame.call).cloned() else { return Ok(()) };
    match call.take_in(frame)? {
        Taken::Open => {}
        Taken::Ended => {
            shared.lock().calls.remove(&call.id);
        }
        Taken::TooMuch => shared.cancel(call.id),
    }
    Ok(())
}
