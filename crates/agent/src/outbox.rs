//! The bytes that wait to be written to one connection: frames, built in place.

use std::os::fd::AsFd;

use protocol::agent::{Channel, Frame, HEADER_LEN, Kind, MAX_PAYLOAD, encode_header};
use rustix::io::Errno;
use serde::Serialize;

/// Above this many waiting bytes nothing more is produced for the connection, except ends of calls
/// (which are small, and bounded by the calls that are open).
const FULL: usize = 256 * 1024;
/// A buffer that grew beyond this is given back once it is empty and no call is open.
const KEEP: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buf: Vec<u8>,
    start: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.buf.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more may be produced.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < FULL
    }

    /// Whether producers that were turned away may come back. Lower than full, so that they come
    /// back for more than one frame.
    pub(crate) fn is_low(&self) -> bool {
        self.len() < FULL / 2
    }

    pub(crate) fn frame(&mut self, kind: Kind, channel: Channel, call: u32, payload: &[u8]) {
        Frame { kind, channel, call, payload }.encode(&mut self.buf);
    }

    /// A frame with a JSON payload. Callers keep what they send within [`MAX_PAYLOAD`].
    pub(crate) fn json<T: Serialize>(&mut self, kind: Kind, call: u32, body: &T) {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; HEADER_LEN]);
        let written = serde_json::to_writer(&mut self.buf, body);
        debug_assert!(written.is_ok(), "our messages have string keys only");
        let len = self.buf.len() - at - HEADER_LEN;
        debug_assert!(len <= MAX_PAYLOAD, "a message of {len} bytes");
        self.seal(at, kind, Channel::Input, call);
    }

    pub(crate) fn credit(&mut self, call: u32, bytes: u32) {
        self.frame(Kind::Credit, Channel::Input, call, &bytes.to_le_bytes());
    }

    /// Reads up to `max` bytes from `fd` straight into a data frame. Nothing is added at the end
    /// of the input (0) or on an error.
    pub(crate) fn data_from(
        &mut self,
        fd: impl AsFd,
        channel: Channel,
        call: u32,
        max: usize,
    ) -> Result<usize, Errno> {
        let max = max.min(MAX_PAYLOAD);
        self.compact();
        self.buf.reserve(HEADER_LEN + max);
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; HEADER_LEN]);
        let spare = &mut self.buf.spare_capacity_mut()[..max];
        let got = match rustix::io::read(fd, spare) {
            Ok((filled, _)) => filled.len(),
            Err(errno) => {
                self.buf.truncate(at);
                return Err(errno);
            }
        };
        if got == 0 {
            self.buf.truncate(at);
            return Ok(0);
        }
        // SAFETY: the header was written above and `read` initialised the `got` bytes behind it;
        // both lie within the capacity reserved before.
        unsafe { self.buf.set_len(at + HEADER_LEN + got) };
        self.seal(at, Kind::Data, channel, call);
        Ok(got)
    }

    /// Writes what the connection takes. `Ok(false)` when it takes no more now.
    pub(crate) fn flush(&mut self, fd: impl AsFd) -> Result<bool, Errno> {
        while self.start < self.buf.len() {
            match rustix::io::write(&fd, &self.buf[self.start..]) {
                Ok(n) => self.start += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        self.buf.clear();
        self.start = 0;
        Ok(true)
    }

    /// Gives memory back. Says whether there was much of it.
    pub(crate) fn shrink(&mut self) -> bool {
        let large = self.is_empty() && self.buf.capacity() > KEEP;
        if large {
            *self = Self::default();
        }
        large
    }

    fn seal(&mut self, at: usize, kind: Kind, channel: Channel, call: u32) {
        let len = self.buf.len() - at - HEADER_LEN;
        self.buf[at..at + HEADER_LEN].copy_from_slice(&encode_header(kind, channel, call, len));
    }

    /// Moves what waits to the front once most of the buffer is behind it.
    fn compact(&mut self) {
        if self.start > 0 && self.start >= self.len() {
            self.buf.drain(..self.start);
            self.start = 0;
        }
    }
}

/// How many bytes `text` takes as a JSON string, quotes and a comma included.
pub(crate) fn json_len(text: &str) -> usize {
    let escaped = |b: u8| match b {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_len_is_never_too_small() {
        for text in ["", "plain", "q\"uote\\", "\u{1}\u{7f}\n\t", "häß\u{2028}"] {
            assert!(json_len(text) > serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }

    #[test]
    fn data_goes_out_as_read_and_memory_comes_back() {
        let (r, w) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&w, b"hello").unwrap();
        let mut out = Outbox::default();
        assert_eq!(out.data_from(&r, Channel::Out, 7, 4).unwrap(), 4);
        assert_eq!(out.data_from(&r, Channel::Err, 7, 1 << 20).unwrap(), 1);
        drop(w);
        assert_eq!(out.data_from(&r, Channel::Out, 7, 4).unwrap(), 0);
        let (r2, w2) = rustix::pipe::pipe().unwrap();
        assert!(out.flush(&w2).unwrap());
        assert!(out.shrink());
        let mut bytes = [0; 64];
        let n = rustix::io::read(&r2, &mut bytes).unwrap();
        let mut decoder = protocol::agent::Decoder::new();
        decoder.feed(&bytes[..n]);
        let first = decoder.next().unwrap().unwrap();
        assert_eq!(
            (first.kind, first.channel, first.payload),
            (Kind::Data, Channel::Out, &b"hell"[..])
        );
        let second = decoder.next().unwrap().unwrap();
        assert_eq!((second.channel, second.call, second.payload), (Channel::Err, 7, &b"o"[..]));
        assert_eq!(decoder.next().unwrap(), None);
    }
}
