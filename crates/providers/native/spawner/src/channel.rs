//! The spawner's end of the socket: orders in, replies out.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use protocol::spawner::{MAX_MESSAGE, Numbered, Reply};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg,
    sendmsg,
};
use serde::de::DeserializeOwned;

/// Where whoever starts us puts the socket.
const SOCKET: RawFd = 3;
/// The most descriptors that ride along: a listening socket and a pipe.
const MAX_FDS: usize = 2;

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
        self.receive(RecvFlags::CMSG_CLOEXEC)
    }

    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Received<T> {
        self.receive(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    fn receive<T: DeserializeOwned>(&mut self, flags: RecvFlags) -> Received<T> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut riders = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [std::io::IoSliceMut::new(&mut self.buffer)];
        let got = match recvmsg(&self.socket, &mut slices, &mut riders, flags) {
            Ok(got) if got.bytes > 0 => got.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Ok(_) | Err(_) => return Received::Closed,
        };
        let mut fds = Vec::new();
        for message in riders.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
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
        let mut none = SendAncillaryBuffer::default();
        let text = [IoSlice::new(&text)];
        while let Err(Errno::INTR) = sendmsg(&self.socket, &text, &mut none, SendFlags::NOSIGNAL) {}
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
