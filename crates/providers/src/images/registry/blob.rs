//! The bytes of layers, from a registry to a thread that unpacks them.
//!
//! A line that breaks is taken up again where it broke; the digest is taken over all that came. The
//! unpacker sets the pace: no more than a few pieces wait for it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout};
use tokio_util::sync::CancellationToken;
use types::Fault;

use super::super::install::{LayerSource, given_up};
use super::super::oci::{Descriptor, unusable};
use super::super::sealed::Sealed;
use super::http::{Trouble, no_use, silent};
use super::session::Session;

/// Pieces that wait to be unpacked; each is what one read of the line gave.
const WAITING: usize = 16;
/// So much makes up for the tries before it.
const PROGRESS: u64 = 1 << 20;

/// The layers of an image at a registry.
pub(in super::super) struct Layers {
    pub session: Arc<Session>,
    pub layers: Vec<Descriptor>,
    /// How much of each is here.
    pub here: Arc<Vec<AtomicU64>>,
    pub changed: Box<dyn Fn() + Send + Sync>,
    pub runtime: tokio::runtime::Handle,
    pub stop: CancellationToken,
}

impl LayerSource for Layers {
    fn open(&self, layer: usize) -> Result<Box<dyn Read + Send>, Fault> {
        let what = self.layers[layer].clone();
        let hex = what.hex()?.to_owned();
        let (send, receive) = mpsc::channel(WAITING);
        let (session, stop) = (Arc::clone(&self.session), self.stop.clone());
        let (size, here) = (what.size, Arc::clone(&self.here));
        // Ends with the reader: whatever it sends has nowhere to go then.
        self.runtime.spawn(async move {
            let failed = tokio::select! {
                done = pump(&session, &what, &send, &here[layer]) => done.err(),
                () = stop.cancelled() => Some(given_up()),
                () = send.closed() => None,
            };
            if let Some(fault) = failed {
                let _ = send.send(Err(fault)).await;
            }
        });
        Ok(Box::new(Sealed::new(Pieces { receive, piece: Bytes::new() }, &hex, size)))
    }

    fn have(&self, layer: usize) {
        self.here[layer].store(self.layers[layer].size, Ordering::Relaxed);
        (self.changed)();
    }
}

/// Reads what comes through the channel.
struct Pieces {
    receive: mpsc::Receiver<Result<Bytes, Fault>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receive.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(fault)) => return Err(io::Error::other(fault)),
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(buf.len());
        self.piece.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

type Pipe = mpsc::Sender<Result<Bytes, Fault>>;

/// Sends the whole blob, over as many connections as it takes.
async fn pump(
    session: &Session,
    what: &Descriptor,
    pipe: &Pipe,
    here: &AtomicU64,
) -> Result<(), Fault> {
    let mut at = 0;
    let (mut tries, mut counted) = (0, 0);
    loop {
        let trouble = match stretch(session, what, pipe, here, &mut at).await {
            Ok(()) if at == what.size => return Ok(()),
            Ok(()) => Trouble::again(Fault::unavailable("the registry broke off")),
            Err(trouble) => trouble,
        };
        if at >= counted + PROGRESS {
            (tries, counted) = (0, at);
        }
        session.http.pause(trouble, &mut tries).await?;
    }
}

/// What one connection gives, from `at` on.
async fn stretch(
    session: &Session,
    what: &Descriptor,
    pipe: &Pipe,
    here: &AtomicU64,
    at: &mut u64,
) -> Result<(), Trouble> {
    let mut response = session.get("blobs", &what.digest, *at).await?;
    // One that knows no ranges begins anew.
    let mut skip = match response.status() {
        StatusCode::PARTIAL_CONTENT if *at > 0 => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
            let start =
                range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(*at) {
                return Err(Trouble::Final(no_use("it gives another part than was asked for")));
            }
            0
        }
        _ => *at,
    };
    let url = response.url().clone();
    let (window, least) = session.http.patience.slow;
    let (mut waited, mut came) = (Duration::ZERO, 0);
    loop {
        let before = Instant::now();
        let chunk = timeout(session.http.patience.silence, response.chunk()).await;
        let chunk = chunk.map_err(|_| Trouble::again(silent(&url)))?;
        let Some(mut chunk) = chunk.map_err(|e| {
            Trouble::again(Fault::unavailable("the registry broke off").caused_by(e))
        })?
        else {
            return Ok(());
        };
        waited += before.elapsed();
        came += chunk.len() as u64;
        if waited >= window {
            if came < least {
                return Err(Trouble::again(silent(&url)));
            }
            (waited, came) = (Duration::ZERO, 0);
        }
        let old = skip.min(chunk.len() as u64);
        skip -= old;
        chunk.advance(usize::try_from(old).expect("no more than the piece has"));
        if chunk.is_empty() {
            continue;
        }
        *at += chunk.len() as u64;
        if *at > what.size {
            return Err(Trouble::Final(unusable("a layer of it is longer than it should be")));
        }
        here.store(*at, Ordering::Relaxed);
        if pipe.send(Ok(chunk)).await.is_err() {
            return Err(Trouble::Final(given_up()));
        }
    }
}
