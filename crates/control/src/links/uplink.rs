//! What workers tell us: that they live, and which of their sandboxes ended unasked.

use std::sync::{Arc, Weak};

use protocol::worker::{BoxFuture, ControlLink, Heartbeat, SandboxEnded};
use store::{Change, StoreError};
use types::{Fault, SandboxId, SandboxState};

use crate::control::Inner;
use crate::fault::store_fault;
use crate::sandboxes::last_words_of;

/// Holds control weakly: control holds its workers, and they hold this.
pub(crate) struct Uplink(Weak<Inner>);

impl Uplink {
    pub fn new(inner: &Arc<Inner>) -> Self {
        Self(Arc::downgrade(inner))
    }

    fn inner(&self) -> Result<Arc<Inner>, Fault> {
        self.0.upgrade().ok_or_else(|| Fault::unavailable("the control plane has stopped"))
    }
}

impl ControlLink for Uplink {
    fn heartbeat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let inner = self.inner()?;
            inner.workers.heartbeat(inner.store.as_ref(), beat).await.map_err(store_fault)
        })
    }

    fn ending(&self, sandbox_id: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let inner = self.inner()?;
            last_words_of(&inner, &sandbox_id).await
        })
    }

    fn report(&self, ended: Vec<SandboxEnded>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let inner = self.inner()?;
            // One that fails must not hide the others: all are tried, then the worker repeats.
            let mut failed = None;
            for fact in ended {
                if let Err(error) = take(&inner, fact).await {
                    failed = Some(error);
                }
            }
            failed.map_or(Ok(()), |error| Err(store_fault(error)))
        })
    }
}

async fn take(inner: &Inner, fact: SandboxEnded) -> Result<(), StoreError> {
    let changed = if fact.removed {
        inner.end(&fact.sandbox_id, fact.generation, fact.reason, Vec::new()).await?
    } else {
        let change = Change {
            state: Some(SandboxState::Error),
            only_from: vec![
                SandboxState::Creating,
                SandboxState::Running,
                SandboxState::Unhealthy,
                SandboxState::Expired,
            ],
            ended_reason: Some(fact.reason),
            generation: Some(fact.generation),
            ..Change::default()
        };
        inner.store.change_sandbox(fact.sandbox_id.clone(), change).await?
    };
    if changed.is_some() {
        tracing::info!(sandbox = %fact.sandbox_id, reason = fact.reason.as_str(), "sandbox ended");
    }
    Ok(())
}
