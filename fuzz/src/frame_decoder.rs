//! The frame decoder: what comes out of a sandbox, cut anywhere, gives the same frames, and those
//! are the bytes that went in.

use protocol::agent::{Decoder, Frame, FrameError, MAX_PAYLOAD};

#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// The frames, encoded again.
    bytes: Vec<u8>,
    frames: usize,
    error: Option<FrameError>,
}

pub fn frame_decoder(data: &[u8]) {
    let whole = decode([data].into_iter());
    assert!(data.starts_with(&whole.bytes), "frames are the bytes that went in, in order");
    // The first byte says how it is cut.
    let step = usize::from(*data.first().unwrap_or(&0) % 61) + 1;
    assert_eq!(whole, decode(data.chunks(step)));
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut decoder = Decoder::new();
    let mut seen = Seen::default();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => take(&mut seen, frame),
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
    }
    seen
}

fn take(seen: &mut Seen, frame: Frame<'_>) {
    assert!(frame.payload.len() <= MAX_PAYLOAD);
    frame.encode(&mut seen.bytes);
    seen.frames += 1;
}
