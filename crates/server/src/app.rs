//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use control::Control;
use tokio_util::sync::CancellationToken;
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
}

impl State {
    pub fn new(config: ServerConfig, control: Control) -> App {
        Arc::new(Self {
            control,
            cors: Cors::new(&config.cors_allowed_origins),
            started: config.clock.boot(),
            config,
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        })
    }

    pub fn uptime(&self) -> Duration {
        self.config.clock.boot().since(self.started)
    }
}
