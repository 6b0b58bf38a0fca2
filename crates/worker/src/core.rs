//! What all parts of a worker share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::worker::ControlLink;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::clock::{BootTime, Clock, SharedClock};
use types::{Fault, SandboxId};

use crate::config::{Providers, WorkerConfig};
use crate::folder::Spares;
use crate::outbox::Outbox;
use crate::pool::Pool;
use crate::probes::Probes;
use crate::supervisor::{Sandbox, Sandboxes};
use crate::ttl::Ttl;

pub(crate) struct Core {
    pub config: WorkerConfig,
    pub boot_id: String,
    pub providers: Providers,
    pub control: Arc<dyn ControlLink>,
    pub clock: SharedClock,
    pub sandboxes: Sandboxes,
    pub spares: Spares,
    pub pool: Pool,
    pub ttl: Ttl,
    pub outbox: Outbox,
    pub probes: Probes,
    /// Work that should not be cut off: spawns, destroys, reports.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub adopted: watch::Sender<bool>,
}

impl Core {
    /// Waits until it is known which sandboxes there are.
    pub async fn adopted(&self) -> Result<(), Fault> {
        if *self.adopted.borrow() && !self.stop.is_cancelled() {
            return Ok(());
        }
        let mut adopted = self.adopted.subscribe();
        tokio::select! {
            _ = adopted.wait_for(|done| *done) => {}
            () = self.stop.cancelled() => {}
        }
        if self.stop.is_cancelled() {
            return Err(Fault::unavailable("the worker is stopping"));
        }
        Ok(())
    }

    pub fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Fault> {
        self.sandboxes.get(id).ok_or_else(|| Fault::not_found(format!("sandbox {id} not found")))
    }

    /// Where all folders of sandboxes are.
    pub fn folders(&self) -> PathBuf {
        self.config.dir.join("sandboxes")
    }

    pub fn folder_of(&self, id: &SandboxId) -> PathBuf {
        self.folders().join(id.as_str())
    }

    /// When the agent ends by itself if this worker does not end it first.
    pub fn agent_deadline(&self, deadline: BootTime) -> BootTime {
        deadline.saturating_add(self.config.expiry_grace)
    }

    /// Waits; `false` if the worker stops first.
    pub async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// Growing pauses between attempts, each with jitter so that many do not march in step.
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Between one half and all of the current step; the step doubles.
    pub fn next(&mut self, clock: &dyn Clock) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        let half = step / 2;
        // The low digits of the clock are as good as dice for this.
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        let dice = clock.boot().nanos().wrapping_mul(0x9E37_79B9_7F4A_7C15) % spread;
        half + Duration::from_nanos(dice)
    }
}
