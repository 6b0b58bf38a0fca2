//! Frames: a 12-byte header and a payload.
//!
//! ```text
//! 0        4        8     9         10        12
//! | length | call   | kind | channel | zero    | payload …
//! ```
//! Numbers are little endian. `length` counts the payload only. Whatever comes out of a sandbox is
//! hostile: lengths are bounded before anything is allocated.

/// The largest payload. Small enough that one frame never holds up others for long.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes of data that may be under way in one direction of one call.
pub const WINDOW: u32 = 256 * 1024;
pub const HEADER_LEN: usize = 12;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON [`super::Hello`], first frame of each side, call 0.
    Hello = 1,
    /// JSON [`super::Request`], opens a call. Server to agent.
    Request = 2,
    /// JSON [`super::End`], closes a call. Agent to server.
    End = 3,
    /// JSON [`super::Event`]: something happened during a call. Agent to server.
    Event = 4,
    /// Raw bytes on a channel.
    Data = 5,
    /// No more data on a channel in this direction.
    Eof = 6,
    /// Four bytes: how many more bytes of data the other side may send in this call.
    Credit = 7,
    /// Give the call up. Server to agent.
    Cancel = 8,
    /// Call 0; answered with `Pong` and the same payload (at most 64 bytes).
    Ping = 9,
    Pong = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Request,
            3 => Self::End,
            4 => Self::Event,
            5 => Self::Data,
            6 => Self::Eof,
            7 => Self::Credit,
            8 => Self::Cancel,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// Which stream of a call a `Data` or `Eof` belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// Input of an exec, content of a file that is written, and frames without a channel.
    Input = 0,
    /// Standard output, content of a file that is read, lines of a log.
    Out = 1,
    /// Standard error.
    Err = 2,
    /// Among the output of an attached command: eight bytes, how many were lost there. Sent to
    /// those that asked with [`super::Request::Attach`] or [`super::ExecSpec::watch`] only.
    Gap = 3,
}

impl Channel {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Input),
            1 => Some(Self::Out),
            2 => Some(Self::Err),
            3 => Some(Self::Gap),
            _ => None,
        }
    }
}

/// One frame; the payload is borrowed from the decoder's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub channel: Channel,
    pub call: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Appends the frame to `out`. The payload must be within [`MAX_PAYLOAD`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.payload.len() <= MAX_PAYLOAD);
        out.extend_from_slice(&encode_header(
            self.kind,
            self.channel,
            self.call,
            self.payload.len(),
        ));
        out.extend_from_slice(self.payload);
    }

    /// The number in a `Credit` frame.
    pub fn credit(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_le_bytes)
    }
}

/// The header alone, for senders that write the payload from elsewhere.
pub fn encode_header(kind: Kind, channel: Channel, call: u32, len: usize) -> [u8; HEADER_LEN] {
    let mut h = [0; HEADER_LEN];
    h[0..4].copy_from_slice(&(len as u32).to_le_bytes());
    h[4..8].copy_from_slice(&call.to_le_bytes());
    h[8] = kind as u8;
    h[9] = channel as u8;
    h
}

/// Bytes that are not frames. The connection is beyond repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    #[error("unknown channel {0}")]
    UnknownChannel(u8),
    #[error("reserved header bytes are not zero")]
    Reserved,
}

/// Cuts a byte stream into frames. Holds at most one frame beyond what was fed in one read.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    start: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes just read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` if more bytes are needed. After an error the connection has to
    /// be closed.
    #[allow(clippy::should_implement_trait)] // it lends from itself, which Iterator cannot
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = &self.buf[self.start..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if len as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(len));
        }
        let kind = Kind::from_byte(header[8]).ok_or(FrameError::UnknownKind(header[8]))?;
        let channel = Channel::from_byte(header[9]).ok_or(FrameError::UnknownChannel(header[9]))?;
        if header[10..12] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        if body.len() < len as usize {
            return Ok(None);
        }
        let call = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let from = self.start + HEADER_LEN;
        self.start = from + len as usize;
        Ok(Some(Frame { kind, channel, call, payload: &self.buf[from..self.start] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (1u8..=10).prop_map(|b| Kind::from_byte(b).unwrap())
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(
                (kinds(), 0u8..4, any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1usize..64,
        ) {
            let mut wire = Vec::new();
            for (kind, ch, call, payload) in &frames {
                let channel = Channel::from_byte(*ch).unwrap();
                Frame { kind: *kind, channel, call: *call, payload }.encode(&mut wire);
            }
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.feed(piece);
                while let Some(f) = decoder.next().unwrap() {
                    seen.push((f.kind, f.channel as u8, f.call, f.payload.to_vec()));
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn a_long_frame_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::new();
        let mut header = encode_header(Kind::Data, Channel::Out, 1, 0);
        header[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        decoder.feed(&header);
        assert_eq!(decoder.next(), Err(FrameError::TooLong(u32::MAX)));
    }
}
