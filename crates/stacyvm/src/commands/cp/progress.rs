//! How far a copy is, on a terminal.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use types::clock::{BootTime, Clock, SystemClock};

use crate::output;

/// Between two looks of a person.
const PAUSE: Duration = Duration::from_millis(200);

pub struct Progress {
    done: u64,
    total: Option<u64>,
    shown: BootTime,
}

impl Progress {
    pub fn new(total: Option<u64>) -> Self {
        Self { done: 0, total, shown: SystemClock.boot() }
    }

    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let now = SystemClock.boot();
        if now.since(self.shown) >= PAUSE {
            self.shown = now;
            let done = output::size(self.done);
            match self.total {
                Some(total) => output::progress(&format!("{done} of {}", output::size(total))),
                None => output::progress(&done),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        output::progress("");
    }
}

/// A reader that tells how far it is.
pub struct Counted<R> {
    from: Pin<Box<R>>,
    progress: Progress,
}

impl<R> Counted<R> {
    pub fn new(from: R, progress: Progress) -> Self {
        Self { from: Box::pin(from), progress }
    }
}

impl<R: AsyncRead> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.from.as_mut().poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.progress.add(read);
        Poll::Ready(Ok(()))
    }
}
