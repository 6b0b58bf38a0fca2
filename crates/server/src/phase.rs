//! What a connection is doing, and how long it may go on with it.
//!
//! ```text
//! head ──request──> busy ──answered──> idle ──first byte──> head
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// From a request's first byte, or the opening of a connection, to the end of its head.
const HEAD: Duration = Duration::from_secs(30);
/// An idle connection is kept as long as clients' pools keep theirs.
const IDLE: Duration = Duration::from_secs(300);
/// A client that takes nothing may be paused by its user; but not for ever, since unanswered
/// bytes hold a place.
const STALLED: Duration = Duration::from_secs(3600);

const IN_HEAD: u8 = 0;
const BUSY: u8 = 1;
const IS_IDLE: u8 = 2;

/// Shared by a connection's transport, its requests and its watchdog.
pub(crate) struct Phase {
    opened: Instant,
    now: AtomicU8,
    /// Milliseconds from `opened` to the beginning of this phase, or to the last progress.
    since: AtomicU64,
    stalled: AtomicBool,
}

impl Phase {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            now: AtomicU8::new(IN_HEAD),
            since: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        })
    }

    fn enter(&self, phase: u8) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(millis, Ordering::Relaxed);
        self.now.store(phase, Ordering::Release);
    }

    /// When patience ends, unless something happens until then. `None`: a request has all the time
    /// it needs.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.opened + Duration::from_millis(self.since.load(Ordering::Relaxed));
        let stalled = self.stalled.load(Ordering::Relaxed);
        match self.now.load(Ordering::Acquire) {
            _ if stalled => Some(since + STALLED),
            IN_HEAD => Some(since + HEAD),
            IS_IDLE => Some(since + IDLE),
            _ => None,
        }
    }

    /// A request has come. Until the returned guard is dropped the connection is busy.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.enter(BUSY);
        Busy(Arc::clone(self))
    }

    fn read_something(&self) {
        if self.now.load(Ordering::Relaxed) == IS_IDLE {
            self.enter(IN_HEAD);
        }
    }

    fn wrote<T>(&self, progress: &Poll<T>) {
        let stalled = progress.is_pending();
        if self.stalled.swap(stalled, Ordering::Relaxed) != stalled {
            self.enter(self.now.load(Ordering::Relaxed));
        }
    }
}

/// Keeps its connection busy; lives as long as the request and its answer's body.
pub(crate) struct Busy(Arc<Phase>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(IS_IDLE);
    }
}

/// A transport that tells its phase what moves.
pub(crate) struct Watched<T> {
    pub io: T,
    pub phase: Arc<Phase>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.phase.read_something();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.phase.wrote(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.phase.wrote(&wrote);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_patience() {
        let start = Instant::now();
        let phase = Phase::new();
        assert_eq!(phase.deadline(), Some(start + HEAD));
        let busy = phase.busy();
        assert_eq!(phase.deadline(), None);
        phase.read_something();
        assert_eq!(phase.deadline(), None, "a body is no new head");
        tokio::time::advance(Duration::from_secs(1000)).await;
        phase.wrote(&Poll::<()>::Pending);
        drop(busy);
        assert_eq!(phase.deadline(), Some(Instant::now() + STALLED), "its client reads slowly");
        phase.wrote(&Poll::Ready(()));
        assert_eq!(phase.deadline(), Some(Instant::now() + IDLE));
        phase.read_something();
        assert_eq!(phase.deadline(), Some(Instant::now() + HEAD));
    }
}
