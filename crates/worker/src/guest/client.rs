//! The agent of one sandbox, as the supervisor sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::agent::{Body, MAX_PAYLOAD, Request, capability};
use providers::{Provider, Runtime};
use types::{ErrorCode, Fault};

use super::call::{CallHandle, Item};
use super::connection::{self, Shared};
use super::error::{GuestError, Lost};

/// Opening a stream to an agent that listens takes microseconds; a loaded host gets some time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How often a call is moved to a new connection because the old one ended just before.
const ATTEMPTS: usize = 3;

/// The client to one agent. Calls share one connection.
pub(crate) struct Guest {
    provider: Arc<dyn Provider>,
    runtime: Arc<Runtime>,
    idle: Duration,
    current: Mutex<Option<Arc<Shared>>>,
    /// Held while a connection is opened, so that a burst of calls opens one.
    opening: tokio::sync::Mutex<()>,
    hung_up: AtomicBool,
    keep: AtomicBool,
}

impl Guest {
    pub fn new(provider: Arc<dyn Provider>, runtime: Arc<Runtime>, idle: Duration) -> Self {
        Self {
            provider,
            runtime,
            idle,
            current: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            hung_up: AtomicBool::new(false),
            keep: AtomicBool::new(false),
        }
    }

    /// Opens the connection and shakes hands.
    pub async fn greet(&self) -> Result<(), GuestError> {
        self.connection(None).await.map(|_| ())
    }

    /// Whether the agent can do this: one of an older release is not asked for what it does not know.
    pub async fn can(&self, capability: &str) -> Result<bool, GuestError> {
        Ok(self.connection(None).await?.can(capability))
    }

    /// Opens a call.
    pub async fn call(&self, request: &Request) -> Result<CallHandle, GuestError> {
        let text = serde_json::to_vec(request).expect("a request is plain data");
        if text.len() > MAX_PAYLOAD {
            return Err(GuestError::Fault(Fault::new(
                ErrorCode::TooLarge,
                format!("the request is larger than {} KiB", MAX_PAYLOAD >> 10),
            )));
        }
        let mut broken = None;
        for _ in 0..ATTEMPTS {
            let connection = self.connection(broken.as_ref()).await?;
            allow(request, &connection.lock().capabilities)?;
            match connection.call(&text).await {
                Ok(call) => return Ok(call),
                Err(connection::Gone) => broken = Some(connection),
            }
        }
        Err(GuestError::Lost(Lost::Closed))
    }

    /// A call whose end is all there is.
    pub async fn ask(&self, request: &Request) -> Result<Body, GuestError> {
        let mut call = self.call(request).await?;
        loop {
            match call.next().await? {
                Item::End(body) => return Ok(body),
                Item::Event(_) | Item::Data(..) => {}
            }
        }
    }

    /// From now on a call that is dropped is not cancelled: it runs on in the sandbox.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::SeqCst);
        if let Some(connection) = self.slot().as_ref() {
            connection.keep();
        }
    }

    /// Ends the connection without cancelling what runs, and opens none any more.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::SeqCst);
        if let Some(connection) = self.slot().take() {
            connection.close(Lost::HungUp);
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The connection that is open and not `broken`.
    fn usable(&self, broken: Option<&Arc<Shared>>) -> Option<Arc<Shared>> {
        let current = self.slot().clone()?;
        let known_broken = broken.is_some_and(|b| Arc::ptr_eq(b, &current));
        let closed = known_broken || current.lock().closed.is_some();
        (!closed).then_some(current)
    }

    async fn connection(&self, broken: Option<&Arc<Shared>>) -> Result<Arc<Shared>, GuestError> {
        if let Some(open) = self.usable(broken) {
            return Ok(open);
        }
        let _opening = self.opening.lock().await;
        if let Some(open) = self.usable(broken) {
            return Ok(open);
        }
        if self.hung_up.load(Ordering::SeqCst) {
            return Err(GuestError::Lost(Lost::HungUp));
        }
        let stream = tokio::time::timeout(CONNECT_DEADLINE, self.provider.connect(&self.runtime))
            .await
            .map_err(|_| GuestError::Lost(Lost::Silent))?
            .map_err(GuestError::Unreachable)?;
        let opening = connection::open(stream, self.idle);
        let connection = opening.ready(self.runtime.id.as_str()).await?;
        *self.slot() = Some(Arc::clone(&connection));
        if self.keep.load(Ordering::SeqCst) {
            connection.keep();
        }
        if self.hung_up.load(Ordering::SeqCst) {
            connection.close(Lost::HungUp);
        }
        Ok(connection)
    }
}

/// An agent outlives the server that made it: what it does not know is not asked of it.
fn allow(request: &Request, capabilities: &[String]) -> Result<(), GuestError> {
    let missing = needs(request).into_iter().find(|n| !capabilities.iter().any(|c| c == n));
    let Some(name) = missing else { return Ok(()) };
    let what = match name {
        capability::TTY => "terminals",
        capability::USER => "other users",
        capability::TREES => "archives",
        _ => "detached commands",
    };
    Err(GuestError::Fault(Fault::new(
        ErrorCode::Unprocessable,
        format!("this sandbox was made by an older release, which knows no {what}"),
    )))
}

fn needs(request: &Request) -> Vec<&'static str> {
    match request {
        Request::Exec(spec) => [
            (spec.detach, capability::ATTACH),
            (spec.tty.is_some(), capability::TTY),
            (spec.user.is_some(), capability::USER),
        ]
        .into_iter()
        .filter_map(|(asked, name)| asked.then_some(name))
        .collect(),
        Request::Attach { .. } | Request::Input { .. } | Request::Kill { .. } => {
            vec![capability::ATTACH]
        }
        Request::Resize { .. } => vec![capability::TTY],
        Request::Pack { .. } | Request::Unpack { .. } => vec![capability::TREES],
        Request::Execs
        | Request::Signal { .. }
        | Request::Write { .. }
        | Request::Read { .. }
        | Request::List { .. }
        | Request::Stat { .. }
        | Request::Delete { .. }
        | Request::Move { .. }
        | Request::Chmod { .. }
        | Request::Glob { .. }
        | Request::Logs { .. }
        | Request::Note { .. }
        | Request::Status
        | Request::Deadline { .. }
        | Request::Shutdown
        | Request::Unknown => Vec::new(),
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hang_up();
    }
}
