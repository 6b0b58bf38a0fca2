//! The spawner's end of the socket: orders in, replies out.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use protocol::spawner::{MAX_MESSAGE, Numbered, Reply};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::RecvFlags;
use serde::de::DeserializeOwned;

use crate::datagram;

/// Where whoever starts us puts the socket.
const SOCKET: RawFd = 3;

pub(crate) struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What came.
pub(crate) enum Received<T> {
    Message(Numbered<T>, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other end has gone, or says what nobody understands.
    Closed,
}

impl Channel {
    /// The socket we were started with; `None` if there is none.
    pub(crate) fn inherited() -> Option<Self> {
        // SAFETY: by our contract descriptor 3 is ours; this runs once, at the start. If nothing is
        // open there the next call says so, and the value is leaked rather than closed.
        let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
        if fcntl_setfd(&socket, FdFlags::CLOEXEC).is_err() {
            std::mem::forget(socket);
            return None;
        }
        Some(Self { socket, buffer: vec![0; MAX_MESSAGE] })
    }

    /// Waits for the first message.
    pub(crate) fn first<T: DeserializeOwned>(&mut self) -> Received<T> {
        self.receive(RecvFlags::empty())
    }

    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Received<T> {
        self.receive(RecvFlags::DONTWAIT)
    }

    fn receive<T: DeserializeOwned>(&mut self, flags: RecvFlags) -> Received<T> {
        let (got, fds) = match datagram::receive(&self.socket, &mut self.buffer, flags) {
            Ok((got, fds)) if got > 0 => (got, fds),
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Ok(_) | Err(_) => return Received::Closed,
        };
        let message = serde_json::from_slice(&self.buffer[..got]);
        // A sandbox is a copy of this process: what the last one was told is none of its business.
        self.buffer[..got].fill(0);
        match message {
            Ok(message) => Received::Message(message, fds),
            Err(_) => Received::Closed,
        }
    }

    /// Answers. Whoever asked waits for it, so there is room; a server that has gone is noticed by
    /// the loop.
    pub(crate) fn reply(&self, n: u64, body: Reply) {
        let Ok(text) = serde_json::to_vec(&Numbered { n, body }) else { return };
        let _ = datagram::send(&self.socket, &text, &[]);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
