//! Questions and answers on the spawner's socket: numbered, many under way at once.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::spawner::{MAX_MESSAGE, Numbered, Order, Reply, Setup};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg,
};
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use types::failpoint::hit;

#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("the message is too long")]
    TooLong,
    #[error("the spawner is gone")]
    Closed,
    #[error("talking to the spawner")]
    Io(#[source] io::Error),
}

pub(super) struct Channel {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
}

/// Who waits for which answer. Bounded by the callers: each waits for one.
#[derive(Default)]
struct Waiting {
    closed: bool,
    by_number: HashMap<u64, oneshot::Sender<Reply>>,
}

impl Channel {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: an OwnedFd keeps its one descriptor open until the AsyncFd is dropped.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket, waiting: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// The first message; `listen` has to run for its answer to be seen.
    pub async fn set_up(&self, setup: &Setup) -> Result<Reply, ChannelError> {
        self.ask_as(0, setup, &[], || ()).await
    }

    pub async fn ask(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Reply, ChannelError> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let sent = || match order {
            Order::Spawn(_) => hit("spawn.ordered"),
            Order::Release { .. } => hit("destroy.ordered"),
            Order::Adopt { .. } => {}
        };
        self.ask_as(n, order, fds, sent).await
    }

    async fn ask_as(
        &self,
        n: u64,
        body: &(impl Serialize + Sync),
        fds: &[BorrowedFd<'_>],
        sent: impl FnOnce() + Send,
    ) -> Result<Reply, ChannelError> {
        let text = serde_json::to_vec(&Numbered { n, body })
            .map_err(|e| ChannelError::Io(io::Error::other(e)))?;
        if text.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLong);
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(ChannelError::Closed);
            }
            waiting.by_number.insert(n, answer);
        }
        // Also when this future is dropped: nobody waits for that number any more.
        let _forget = Forget(self, n);
        self.send(&text, fds).await?;
        sent();
        answered.await.map_err(|_| ChannelError::Closed)
    }

    /// One datagram; the kernel keeps it whole, so that senders need no lock.
    async fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        loop {
            let mut ready = self.socket.writable().await.map_err(ChannelError::Io)?;
            match ready.try_io(|socket| send_now(socket.get_ref(), text, fds)) {
                Ok(done) => return done.map_err(ChannelError::Io),
                Err(_would_block) => {}
            }
        }
    }

    /// Hands answers out until the spawner closes its end. Whoever still waits then is told.
    pub async fn listen(&self) {
        let mut buffer = vec![0; MAX_MESSAGE];
        while let Ok(len @ 1..) = self.receive(&mut buffer).await {
            match serde_json::from_slice::<Numbered<Reply>>(&buffer[..len.min(MAX_MESSAGE)]) {
                Ok(reply) => {
                    let waiter = self.waiting().by_number.remove(&reply.n);
                    if let Some(waiter) = waiter {
                        let _ = waiter.send(reply.body); // it may have given up
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the spawner's answer can't be read");
                    break;
                }
            }
        }
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.by_number.clear();
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable().await?;
            let receive = |socket: &AsyncFd<OwnedFd>| {
                let (len, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?;
                Ok(len)
            };
            match ready.try_io(receive) {
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// Tells the spawner to end.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both); // it may be gone already
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

struct Forget<'a>(&'a Channel, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting().by_number.remove(&self.1);
    }
}

/// The most descriptors a message carries: a socket and a pipe.
const MAX_FDS: usize = 2;

fn send_now(socket: &OwnedFd, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut riders = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !riders.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket.as_fd(), &[IoSlice::new(text)], &mut riders, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests;
