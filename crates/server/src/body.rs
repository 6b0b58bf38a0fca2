//! Bodies of requests that are read whole, with a bound on size and on time; `upload` has those that
//! stream.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use types::{ErrorCode, Fault};

/// For a body that does not come at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// A body may take a second longer for each so many bytes that did come: slower than that is no
/// slow line, but somebody holding connections.
pub(crate) const BYTES_A_SECOND: u64 = 16 * 1024;
/// How much of a body that is refused is read and thrown away, so that its sender reads our
/// answer instead of a connection reset.
const DRAIN_BYTES: u64 = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The whole body, if it has at most `limit` bytes.
pub(crate) async fn collect(mut body: Body, limit: u64) -> Result<Bytes, Fault> {
    if body.size_hint().lower() > limit {
        return Err(refuse(body, limit).await);
    }
    let start = Instant::now();
    let mut received = 0;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let deadline = start + PATIENCE + Duration::from_secs(received / BYTES_A_SECOND);
        let Some(chunk) = next(&mut body, deadline).await? else { break };
        received += chunk.len() as u64;
        if received > limit {
            return Err(refuse(body, limit).await);
        }
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

pub(crate) async fn next(body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, Fault> {
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            Fault::new(ErrorCode::Timeout, "the body of the request did not arrive in time")
        })?;
        match frame.transpose() {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Err(e) => {
                return Err(Fault::bad_request("the body of the request broke off").caused_by(e));
            }
        }
    }
}

async fn refuse(mut body: Body, limit: u64) -> Fault {
    drain(&mut body).await;
    Fault::new(ErrorCode::TooLarge, format!("the body has more than {limit} bytes"))
}

/// Reads on for a while, so that the sender comes to read our answer.
pub(crate) async fn drain(body: &mut Body) {
    let deadline = Instant::now() + DRAIN_TIME;
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        match next(body, deadline).await {
            Ok(Some(chunk)) => drained += chunk.len() as u64,
            Ok(None) | Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn chunks(sizes: &'static [usize]) -> Body {
        let chunk = |n: &usize| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; *n]));
        Body::from_stream(stream::iter(sizes.iter().map(chunk)))
    }

    #[tokio::test]
    async fn bug_32_bodies_are_bounded() {
        assert_eq!(collect(chunks(&[3, 0, 4]), 7).await.unwrap().len(), 7);
        assert_eq!(collect(chunks(&[7]), 7).await.unwrap().len(), 7);
        assert_eq!(collect(Body::empty(), 0).await.unwrap().len(), 0);
        for body in [chunks(&[3, 5]), Body::from("12345678")] {
            assert_eq!(collect(body, 7).await.unwrap_err().code, ErrorCode::TooLarge);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        let silent = stream::pending::<Result<Bytes, std::io::Error>>();
        let fault = collect(Body::from_stream(silent), 10).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::Timeout);
    }
}
