//! The control plane as one value: what it is made of, how it begins to listen and how it stops.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{ControlLink, WorkerLink};
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::clock::{BootTime, SharedClock};
use types::{Timestamp, WorkerId};

use crate::ControlConfig;
use crate::background::Background;
use crate::fault::chain;
use crate::links::{Links, Uplink};
use crate::sandboxes::{Endings, History, Spawning, Watching};
use crate::workers::Registry;

/// How long a stop waits for spawns and destroys that are under way. What is not done by then is
/// found by the next start: every step is recorded before it is taken.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// The control plane. Clones are the same one.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: ControlConfig,
    pub store: Arc<dyn Store>,
    pub clock: SharedClock,
    pub links: Links,
    pub workers: Arc<Registry>,
    pub spawning: Arc<Spawning>,
    pub endings: Endings,
    /// Commands whose ends are to be recorded.
    pub watching: Watching,
    pub history: History,
    pub background: Background,
    pub tracker: TaskTracker,
    pub stopping: CancellationToken,
    /// Whether the first comparison with every attached worker is done.
    pub adopted: watch::Sender<bool>,
    anchor: (Timestamp, BootTime),
}

impl Control {
    pub fn new(config: ControlConfig, store: Arc<dyn Store>, clock: SharedClock) -> Self {
        let anchor = (clock.wall(), clock.boot());
        Self(Arc::new(Inner {
            config,
            store,
            links: Links::default(),
            workers: Arc::new(Registry::new(clock.clone())),
            clock,
            spawning: Arc::default(),
            endings: Endings::default(),
            watching: Watching::default(),
            history: History::default(),
            background: Background::default(),
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            adopted: watch::Sender::new(false),
            anchor,
        }))
    }

    /// What a worker in this process reports to. It does not keep this control plane alive.
    pub fn control_link(&self) -> Arc<dyn ControlLink> {
        Arc::new(Uplink::new(&self.0))
    }

    /// Makes a worker reachable. It takes sandboxes once it has sent a heartbeat.
    pub fn attach_worker(&self, id: WorkerId, link: Arc<dyn WorkerLink>) {
        self.0.links.attach(id, link);
    }

    /// The server is about to go. A command whose output nobody takes from now on runs on, and the
    /// next server learns how it ends.
    pub fn leave(&self) {
        self.0.history.leave();
    }

    /// Stops the background tasks and waits for short work. Sandboxes stay.
    pub async fn shutdown(&self) {
        self.0.stopping.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.0.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.0.tracker.len(), "stops before all work is done");
        }
        if let Err(fault) = self.0.history.write(&self.0).await {
            tracing::warn!(error = chain(&fault), "the last commands are missing in the history");
        }
    }
}

impl Inner {
    /// The time by which a ttl counts as over.
    ///
    /// Never ahead of boot time: a wall clock that is set forward ends no sandbox early. One that
    /// is set back delays us, but then the worker, which counts boot time alone, ends it.
    pub fn due_by(&self) -> Timestamp {
        let steady = self.anchor.0.saturating_add(self.clock.boot().since(self.anchor.1));
        steady.min(self.clock.wall())
    }
}
