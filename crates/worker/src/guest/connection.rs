//! A connection as its callers and its driver share it: what is to be sent, and the open calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::Duration;

use protocol::agent::{Channel, Hello, Kind, PROTOCOL_VERSION, capability, encode_header};
use tokio::sync::{Notify, oneshot};
use types::Fault;

use providers::AgentStream;

use super::call::{Call, CallHandle};
use super::driver;
use super::error::{GuestError, Lost};

/// The oldest version of the protocol that this release speaks.
const MIN_VERSION: u32 = 1;
/// What this release asks for by name; an agent that knows more knows it for others.
const CAPABILITIES: &[&str] = &[
    capability::ATTACH,
    capability::TTY,
    capability::USER,
    capability::READ_RANGE,
    capability::TREES,
];
/// Bytes that wait to be written before senders wait.
const OUT_HIGH: usize = 256 << 10;
/// Bytes that wait although senders do: an agent that reads nothing but earns credit and answers.
const OUT_MAX: usize = 1 << 20;
/// An agent that listens answers its first frame at once; a loaded host gets some time.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// The state of one connection.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Room in `out` again, or the end.
    room: Notify,
}

pub(super) struct State {
    pub out: Vec<u8>,
    pub calls: HashMap<u32, Arc<Call>>,
    next: u32,
    pub closed: Option<Lost>,
    /// What is given up from now on runs on in the agent.
    keep: bool,
    /// What the agent said that it can do.
    pub capabilities: Vec<String>,
    driver: Option<Waker>,
}

/// The connection has ended: open another.
pub(super) struct Gone;

/// A connection whose agent has not said hello yet.
pub(super) struct Opening {
    shared: Arc<Shared>,
    hello: oneshot::Receiver<Hello>,
}

/// Starts the driver of a new stream.
pub(super) fn open(stream: AgentStream, idle: Duration) -> Opening {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            out: Vec::new(),
            calls: HashMap::new(),
            next: 1,
            closed: None,
            keep: false,
            capabilities: Vec::new(),
            driver: None,
        }),
        room: Notify::new(),
    });
    let hello = Hello {
        version: PROTOCOL_VERSION,
        min_version: MIN_VERSION,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        ..Hello::default()
    };
    let text = serde_json::to_vec(&hello).expect("a hello is plain data");
    shared.small(Kind::Hello, 0, &text);
    let (tell, hello) = oneshot::channel();
    // Ends with the stream, by idleness, or when the guest hangs up.
    tokio::spawn(driver::drive(stream, Arc::clone(&shared), tell, idle));
    Opening { shared, hello }
}

impl Opening {
    /// Waits for the agent's hello and checks that it is the right one, of a known age.
    pub async fn ready(self, sandbox_id: &str) -> Result<Arc<Shared>, GuestError> {
        let checked = match tokio::time::timeout(HELLO_DEADLINE, self.hello).await {
            Ok(Ok(hello)) => {
                let checked = check(&hello, sandbox_id);
                let known = hello.capabilities.into_iter().filter(|c| CAPABILITIES.contains(&&**c));
                self.shared.lock().capabilities = known.collect();
                checked
            }
            Ok(Err(_)) => {
                Err(GuestError::Lost(self.shared.lock().closed.clone().unwrap_or(Lost::Closed)))
            }
            Err(_) => Err(GuestError::Lost(Lost::Silent)),
        };
        match checked {
            Ok(()) => Ok(self.shared),
            Err(e) => {
                self.shared.close(Lost::HungUp);
                Err(e)
            }
        }
    }
}

fn check(hello: &Hello, sandbox_id: &str) -> Result<(), GuestError> {
    if hello.sandbox_id != sandbox_id {
        return Err(GuestError::Lost(Lost::Protocol("it is another sandbox's agent".to_owned())));
    }
    if hello.min_version > PROTOCOL_VERSION || hello.version < MIN_VERSION {
        return Err(GuestError::Fault(Fault::unavailable(format!(
            "the sandbox speaks versions {} to {} of the agent protocol, this server {MIN_VERSION} \
             to {PROTOCOL_VERSION}",
            hello.min_version, hello.version
        ))));
    }
    Ok(())
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether the agent says that it can do this.
    pub fn can(&self, capability: &str) -> bool {
        self.lock().capabilities.iter().any(|c| c == capability)
    }

    /// Opens a call with an encoded request.
    pub async fn call(self: &Arc<Self>, request: &[u8]) -> Result<CallHandle, Gone> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.closed.is_some() {
                    return Err(Gone);
                }
                if state.out.len() < OUT_HIGH {
                    return Ok(state.start(self, request));
                }
            }
            room.await;
        }
    }

    /// Sends a piece of data for which the call has credit.
    pub async fn send_data(&self, call: u32, piece: &[u8]) -> Result<(), Lost> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if let Some(lost) = &state.closed {
                    return Err(lost.clone());
                }
                if state.out.len() < OUT_HIGH {
                    state.push(Kind::Data, call, piece);
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Sends a frame that may not wait. Few and small: see [`OUT_MAX`].
    pub fn small(&self, kind: Kind, call: u32, payload: &[u8]) {
        let mut state = self.lock();
        if state.closed.is_none() {
            state.push(kind, call, payload);
        }
    }

    pub fn grant(&self, call: u32, bytes: u32) {
        self.small(Kind::Credit, call, &bytes.to_le_bytes());
    }

    /// Gives a call up. Frames that still come for it are dropped.
    pub fn cancel(&self, call: u32) {
        let mut state = self.lock();
        if state.calls.remove(&call).is_some() && state.closed.is_none() && !state.keep {
            state.push(Kind::Cancel, call, &[]);
        }
    }

    /// From now on a call that is given up is not cancelled: this server goes, its work does not.
    pub fn keep(&self) {
        self.lock().keep = true;
    }

    /// Ends the connection; its calls end with `lost`. The first reason stays.
    pub fn close(&self, lost: Lost) {
        let mut state = self.lock();
        let lost = state.closed.get_or_insert(lost).clone();
        let calls = std::mem::take(&mut state.calls);
        state.out = Vec::new();
        state.wake();
        drop(state);
        for call in calls.into_values() {
            call.lose(&lost);
        }
        self.room.notify_waiters();
    }

    /// For the driver: moves what waits into `into`, and arranges to be woken for more.
    pub fn take_out(&self, cx: &Context<'_>, into: &mut Vec<u8>) -> Option<Lost> {
        let mut state = self.lock();
        if state.closed.is_some() {
            return state.closed.clone();
        }
        if state.out.len() > OUT_MAX {
            return Some(Lost::Silent);
        }
        if into.is_empty() && !state.out.is_empty() {
            std::mem::swap(&mut state.out, into);
            drop(state);
            self.room.notify_waiters();
            return None;
        }
        if !state.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        None
    }
}

impl State {
    fn start(&mut self, shared: &Arc<Shared>, request: &[u8]) -> CallHandle {
        let id = self.next;
        // Zero is the connection's own; a number that comes round again is long done.
        self.next = self.next.checked_add(1).unwrap_or(1);
        let call = Arc::new(Call::new(id));
        self.calls.insert(id, Arc::clone(&call));
        self.push(Kind::Request, id, request);
        CallHandle { call, connection: Arc::clone(shared) }
    }

    fn push(&mut self, kind: Kind, call: u32, payload: &[u8]) {
        self.out.extend_from_slice(&encode_header(kind, Channel::Input, call, payload.len()));
        self.out.extend_from_slice(payload);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }
}
