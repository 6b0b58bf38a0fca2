//! One line in the log for each request, written when its answer is over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http::{HeaderValue, Method, StatusCode, Uri};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use types::clock::{BootTime, SharedClock};

use crate::phase::Busy;

/// Stands in the log for an answer that was never given, since the client had left.
const CLIENT_LEFT: u16 = 499;

/// What the line says. Dropping it writes the line.
pub(crate) struct Entry {
    pub method: Method,
    pub uri: Uri,
    pub request_id: HeaderValue,
    started: BootTime,
    clock: SharedClock,
    status: Option<StatusCode>,
    sent: u64,
}

impl Entry {
    pub fn new(method: Method, uri: Uri, request_id: HeaderValue, clock: SharedClock) -> Self {
        Self { method, uri, request_id, started: clock.boot(), clock, status: None, sent: 0 }
    }

    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.clock.boot().since(self.started);
        tracing::info!(
            method = %self.method,
            path = self.uri.path(),
            status = self.status.map_or(CLIENT_LEFT, |s| s.as_u16()),
            size = self.sent,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            request_id = self.request_id(),
            "request"
        );
    }
}

/// The body of an answer. Counts what is sent; its end is the end of the request.
pub(crate) struct Tracked {
    body: Body,
    entry: Entry,
    _busy: Busy,
}

impl Tracked {
    pub fn new(body: Body, status: StatusCode, mut entry: Entry, busy: Busy) -> Self {
        entry.status = Some(status);
        Self { body, entry, _busy: busy }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.entry.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
