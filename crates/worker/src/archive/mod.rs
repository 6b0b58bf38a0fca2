//! Directories as tar archives: between what clients send and get, and the trees that agents speak.
//!
//! The codec runs on a thread that may block, between two bounded channels: neither side ever holds
//! more than a few pieces. It reads nothing but bytes and writes nothing but bytes; paths are
//! resolved where they are opened, in the agent.

mod compression;
mod header;
mod reader;
mod writer;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use protocol::worker::{ArchiveFormat, ByteStream};
use tokio::sync::{Semaphore, mpsc};
use types::{ErrorCode, Fault};

use reader::to_tree;

/// Pieces between the codec and its neighbours.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Archives at once: each holds a thread, for as long as its client takes.
const AT_ONCE: usize = 32;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

type Piece = Result<Bytes, Fault>;

/// A codec at work.
pub(crate) struct Codec {
    /// What goes in. Dropped, that was all.
    pub input: mpsc::Sender<Piece>,
    pub output: mpsc::Receiver<Piece>,
}

/// Starts to turn an archive into a tree. Without a format it is told from the first bytes.
pub(crate) fn unpacking(format: Option<ArchiveFormat>) -> Result<Codec, Fault> {
    start(move |input, output| {
        let mut output = output;
        let plain = compression::open(input, format)?;
        reader::to_tree(plain, &mut |bytes| output.send(bytes))
    })
}

/// Reads an archive as one that is sent into a sandbox, compression and all: for fuzzing.
#[doc(hidden)]
pub fn read(
    archive: impl Read + 'static,
    send: &mut dyn FnMut(Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    to_tree(compression::open(archive, None)?, send)
}

/// Starts to turn a tree into an archive.
pub(crate) fn packing(format: ArchiveFormat) -> Result<Codec, Fault> {
    start(move |input, output| writer::from_tree(input, output, format))
}

fn start(
    work: impl FnOnce(Input, Output) -> Result<(), Fault> + Send + 'static,
) -> Result<Codec, Fault> {
    let turn = TURNS.try_acquire().map_err(|_| {
        let words = format!("{AT_ONCE} archives are on their way already; retry");
        Fault::new(ErrorCode::ResourceLimit, words)
    })?;
    let (input, received) = mpsc::channel(PIECES);
    let (sender, output) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let fault = Arc::default();
        let input = Input { pieces: received, at: Bytes::new(), fault: Arc::clone(&fault) };
        if let Err(error) = work(input, Output(sender.clone())) {
            // What broke the input says more than what came of it.
            let broken = fault.lock().unwrap_or_else(|e| e.into_inner()).take();
            // Nobody listens any more: then nobody wants to know.
            let _ = sender.blocking_send(Err(broken.unwrap_or(error)));
        }
    });
    Ok(Codec { input, output })
}

/// The output as a stream; `held` lives as long as it does.
pub(crate) fn stream<T: Send + 'static>(output: mpsc::Receiver<Piece>, held: T) -> ByteStream {
    Box::pin(unfold((output, held), |(mut output, held)| async move {
        let piece = output.recv().await?;
        Some((piece, (output, held)))
    }))
}

/// The codec's end of what goes in.
struct Input {
    pieces: mpsc::Receiver<Piece>,
    at: Bytes,
    /// What the input broke off with.
    fault: Arc<std::sync::Mutex<Option<Fault>>>,
}

impl Input {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.pieces.blocking_recv() {
            Some(Ok(piece)) => Ok(Some(piece)),
            None => Ok(None),
            Some(Err(fault)) => {
                *self.fault.lock().unwrap_or_else(|e| e.into_inner()) = Some(fault);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at.is_empty() {
            match self.next()? {
                Some(piece) => self.at = piece,
                None => return Ok(0),
            }
        }
        let piece = self.at.split_to(self.at.len().min(buffer.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// The codec's end of what comes out.
struct Output(mpsc::Sender<Piece>);

impl Output {
    /// Fails when nobody wants more.
    fn send(&mut self, bytes: Vec<u8>) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let gone = |_| Fault::unavailable("nobody waits for the archive any more");
        self.0.blocking_send(Ok(bytes.into())).map_err(gone)
    }
}

fn broken(words: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::BadRequest, words)
}

#[cfg(test)]
mod tests;
