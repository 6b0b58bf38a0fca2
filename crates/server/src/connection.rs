//! One connection, from accept to close.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::phase::{Phase, Watched};

/// Bytes of a request's head; also how much of an answer is gathered before it is written.
const BUFFER: usize = 128 * 1024;
const MAX_HEADERS: usize = 100;
/// After so long without a sign the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often a connection is looked at: its phase may have become a shorter one.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Serves a connection until it is closed, overdue, or `abort` is cancelled.
pub(crate) async fn serve(
    stream: TcpStream,
    door: Arc<Door>,
    closing: CancellationToken,
    abort: CancellationToken,
) {
    // Best effort all three: without them answers are later, not wrong.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
    let phase = Phase::new();
    let service = service_fn(|request| {
        let (door, busy) = (Arc::clone(&door), phase.busy());
        async move { Ok::<_, Infallible>(door.pass(request, busy).await) }
    });
    let io = TokioIo::new(Watched { io: stream, phase: Arc::clone(&phase) });
    let mut http = http1::Builder::new();
    // The phases keep time; hyper would count idle time as part of the head.
    http.header_read_timeout(None).max_buf_size(BUFFER).max_headers(MAX_HEADERS);
    let mut connection = pin!(http.serve_connection(io, service).with_upgrades());
    let mut told = false;
    loop {
        let later = Instant::now() + LOOK_AGAIN;
        let look = phase.deadline().map_or(later, |deadline| deadline.min(later));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    tracing::debug!(error = %crate::error::chain(&e), "a connection broke");
                }
                return;
            }
            () = closing.cancelled(), if !told => {
                connection.as_mut().graceful_shutdown();
                told = true;
            }
            () = abort.cancelled() => return,
            () = sleep_until(look) => {
                if phase.deadline().is_some_and(|d| d <= Instant::now()) {
                    return;
                }
            }
        }
    }
}
