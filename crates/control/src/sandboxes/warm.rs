//! Sandboxes that a worker has ready: taken before there is a record, so that one transaction both
//! makes the record and answers.
//!
//! ```text
//! take ──> insert (Running + answered) ──> caller has it
//!   │ none      │ full, a repeat, the caller is gone
//!   v           v
//! made anew   given back
//! ```
//!
//! A crash between the two leaves a sandbox without a record, which its worker ends.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{WarmOrder, WarmPoolReport, WorkerLink};
use types::failpoint::hit;
use types::{EndedReason, Fault, Sandbox, SandboxId, SandboxState};

use crate::Control;
use crate::control::Inner;
use crate::fault::{chain, within};

/// A worker that takes longer than this to look is not the quick way.
const TAKE_DEADLINE: Duration = Duration::from_millis(250);
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// One that was taken. Dropped, it is given back.
pub(super) struct Taken {
    inner: Arc<Inner>,
    link: Arc<dyn WorkerLink>,
    id: Option<SandboxId>,
}

/// Takes one that is like the record, whose id and state are then those of what was taken.
pub(super) async fn take(inner: &Arc<Inner>, record: &mut Sandbox) -> Option<Taken> {
    let link = inner.links.get(&record.worker_id)?;
    let order = WarmOrder {
        provider: record.provider.clone(),
        image: record.image.clone(),
        size: record.size,
        generation: record.generation,
        expires_at: record.expires_at,
    };
    match within(TAKE_DEADLINE, "the look into the warm pool", link.take_warm(order)).await {
        Ok(None) => None,
        Ok(Some(id)) => {
            record.id = id.clone();
            record.state = SandboxState::Running;
            record.answered = true;
            hit("pool.taken");
            Some(Taken { inner: inner.clone(), link, id: Some(id) })
        }
        Err(fault) => {
            tracing::debug!(error = chain(&fault), "the warm pool gives nothing");
            None
        }
    }
}

impl Taken {
    /// A record stands for it now.
    pub fn keep(mut self) {
        self.id = None;
    }

    /// Its id is somebody else's: it may go to nobody.
    pub async fn discard(mut self, record: &Sandbox) {
        if let Some(id) = self.id.take() {
            let lease = self.inner.lease(record);
            let ended = self.link.destroy(id, lease, EndedReason::Lost, None);
            if let Err(fault) = within(ASK_DEADLINE, "the destroy", ended).await {
                tracing::warn!(error = chain(&fault), "a sandbox of the warm pool stays");
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Without a runtime this process is ending, and the worker with it.
        if let Some(id) = self.id.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let link = self.link.clone();
            self.inner.tracker.spawn(async move {
                if let Err(fault) = within(ASK_DEADLINE, "the return", link.return_warm(id)).await {
                    tracing::warn!(error = chain(&fault), "a sandbox is not back in the warm pool");
                }
            });
        }
    }
}

impl Control {
    /// The warm pools of all workers that can be reached.
    pub async fn warm_pools(&self) -> Result<Vec<WarmPoolReport>, Fault> {
        let mut pools = Vec::new();
        for (worker, link) in self.0.links.all() {
            match within(ASK_DEADLINE, "asking for warm pools", link.warm_pools()).await {
                Ok(of_this) => pools.extend(of_this),
                Err(fault) => {
                    tracing::warn!(%worker, error = chain(&fault), "worker does not tell its pools");
                }
            }
        }
        Ok(pools)
    }
}
