//! Bodies that stream into a sandbox: of any size, checked on the way, given up when they stall.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use protocol::worker::ByteStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use types::{ErrorCode, Fault};

use crate::body::{self, BYTES_A_SECOND, PATIENCE};
use crate::digest::{Sum, Summing};

/// A body on its way. What reads it may be dropped; what is left can then be thrown away.
pub(crate) struct Upload(Arc<Mutex<Coming>>);

struct Coming {
    body: Body,
    received: u64,
    /// Time in which nothing came although something was asked for. The sandbox's own pace is not
    /// the client's fault.
    waited: Duration,
    /// The checksum as it grows, and what it has to be.
    checked: Option<(Summing, Sum)>,
    over: bool,
}

impl Upload {
    pub fn new(body: Body, promised: Option<Sum>) -> Self {
        let checked = promised.map(|sum| (Summing::default(), sum));
        let coming = Coming { body, received: 0, waited: Duration::ZERO, checked, over: false };
        Self(Arc::new(Mutex::new(coming)))
    }

    /// The content. It ends with a fault where the body breaks off, stalls, or is not what its
    /// checksum says.
    pub fn content(&self) -> ByteStream {
        Box::pin(stream::unfold(Arc::clone(&self.0), |coming| async move {
            let piece = coming.lock().await.next().await.transpose()?;
            Some((piece, coming))
        }))
    }

    /// Bytes that have come.
    pub async fn received(&self) -> u64 {
        self.0.lock().await.received
    }

    /// The rest is not wanted: reads on for a while, so that the client comes to read why.
    pub async fn refuse(&self) {
        let mut coming = self.0.lock().await;
        if !coming.over {
            coming.over = true;
            body::drain(&mut coming.body).await;
        }
    }
}

impl Coming {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.over {
            return Ok(None);
        }
        let patience = PATIENCE + Duration::from_secs(self.received / BYTES_A_SECOND);
        let from = Instant::now();
        let next = body::next(&mut self.body, from + patience.saturating_sub(self.waited)).await;
        self.waited += from.elapsed();
        match next {
            Ok(Some(piece)) => {
                self.received += piece.len() as u64;
                if let Some((sum, _)) = &mut self.checked {
                    sum.add(&piece);
                }
                Ok(Some(piece))
            }
            Ok(None) => {
                self.over = true;
                match self.checked.take().map(|(sum, wanted)| sum.sum() == wanted) {
                    Some(false) => Err(Fault::new(
                        ErrorCode::BadRequest,
                        "the content is not what its checksum says; nothing was changed",
                    )),
                    Some(true) | None => Ok(None),
                }
            }
            Err(fault) => {
                self.over = true;
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_and_a_slow_sandbox_is_not_its_fault() {
        let piece = || Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
        let stalls = stream::iter([piece()]).chain(stream::pending());
        let mut content = Upload::new(Body::from_stream(stalls), None).content();
        assert_eq!(content.next().await.unwrap().unwrap(), "x");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let fault = content.next().await.unwrap().unwrap_err();
        assert_eq!(fault.code, ErrorCode::Timeout);
        assert!(content.next().await.is_none());

        let mut pieces = Upload::new(Body::from_stream(stream::iter([piece(), piece()])), None);
        let mut content = pieces.content();
        while content.next().await.transpose().unwrap().is_some() {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        assert_eq!(pieces.received().await, 2);
        pieces = Upload::new(Body::from("rest"), None);
        pieces.refuse().await;
        assert!(pieces.content().next().await.is_none());
    }

    #[tokio::test]
    async fn content_that_is_not_what_was_promised_ends_in_a_fault() {
        for right in [true, false] {
            let mut sum = Summing::default();
            sum.add(if right { b"content" } else { b"Content" });
            let upload = Upload::new(Body::from("content"), Some(sum.sum()));
            let all: Vec<_> = upload.content().collect().await;
            assert_eq!(all.last().unwrap().is_ok(), right);
        }
    }
}
