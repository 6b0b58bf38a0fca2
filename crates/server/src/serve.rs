//! Listening, and stopping without cutting anybody short.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use control::Control;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, State};
use crate::door::Door;
use crate::{ServerConfig, connection};

/// Open connections; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// What is short gets so long to finish; then it is answered 503.
const FINISH: Duration = Duration::from_secs(9);
/// For those answers to be written: together ten seconds.
const WRITE: Duration = Duration::from_secs(1);
/// Accept fails when descriptors run out; trying at once again would only burn the processor.
const BREATHE: Duration = Duration::from_millis(50);

/// The HTTP server of a control plane.
pub struct Server {
    app: App,
}

impl Server {
    pub fn new(config: ServerConfig, control: Control) -> Self {
        Self { app: State::new(config, control) }
    }

    /// Answers until `shutdown` is cancelled; then finishes what is short, tells the streams, and
    /// returns within ten seconds.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let door = Arc::new(Door::new(Arc::clone(&self.app)));
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let abort = CancellationToken::new();
        let connections = TaskTracker::new();
        while let Some((stream, slot)) = next(&listener, &slots, &shutdown).await {
            let (door, abort) = (Arc::clone(&door), abort.clone());
            let closing = self.app.closing.clone();
            connections.spawn(async move {
                connection::serve(stream, door, closing, abort).await;
                drop(slot);
            });
        }
        drop(listener);
        self.app.closing.cancel();
        connections.close();
        let sessions = &self.app.sessions.tasks;
        sessions.close();
        let all = async || {
            connections.wait().await;
            sessions.wait().await;
        };
        if timeout(FINISH, all()).await.is_err() {
            self.app.closed.cancel();
            let _ = timeout(WRITE, all()).await;
            abort.cancel();
            connections.wait().await;
        }
        Ok(())
    }
}

/// The next connection; `None` once the server is to stop.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accept = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(e) if gone(&e) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a connection failed");
                    sleep(BREATHE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => accepted,
        () = shutdown.cancelled() => None,
    }
}

/// Whether only that one client went away before it was accepted.
fn gone(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
