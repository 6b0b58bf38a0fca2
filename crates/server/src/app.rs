//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use control::Control;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::clock::BootTime;

use crate::ServerConfig;
use crate::cors::Cors;

pub(crate) type App = Arc<State>;

pub(crate) struct State {
    pub control: Control,
    pub config: ServerConfig,
    pub cors: Cors,
    pub started: BootTime,
    /// Cancelled when the server begins to stop: streams say so and end.
    pub closing: CancellationToken,
    /// Cancelled when time is up: whatever is still unanswered is answered 503.
    pub closed: CancellationToken,
    pub sessions: Sessions,
}

/// WebSockets that are open: they have left their connections behind.
pub(crate) struct Sessions {
    pub tasks: TaskTracker,
    pub places: Arc<Semaphore>,
}

/// Open WebSockets; more are refused.
const SESSIONS: usize = 2048;

impl State {
    pub fn new(config: ServerConfig, control: Control) -> App {
        Arc::new(Self {
            control,
            cors: Cors::new(&config.cors_allowed_origins),
            started: config.clock.boot(),
            config,
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            sessions: Sessions {
                tasks: TaskTracker::new(),
                places: Arc::new(Semaphore::new(SESSIONS)),
            },
        })
    }

    pub fn uptime(&self) -> Duration {
        self.config.clock.boot().since(self.started)
    }
}
