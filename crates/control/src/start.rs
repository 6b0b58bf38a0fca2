//! The start: what the store remembers is compared with what the workers hold, then the background
//! tasks begin.

use types::Fault;

use crate::Control;
use crate::background::{compare, drive_tasks};
use crate::fault::{chain, store_fault};

impl Control {
    /// Compares, then begins the background work. Ready afterwards, unless a worker could not be
    /// asked: then `reconcile` goes on asking, and readiness waits for it.
    ///
    /// Fails only when the store does: no sandbox, however odd, keeps us from starting (BUG-18).
    pub async fn start(&self) -> Result<(), Fault> {
        let inner = &self.0;
        inner.store.check().await.map_err(store_fault)?;
        inner.workers.refresh(inner.store.as_ref()).await.map_err(store_fault)?;
        for (worker, link) in inner.links.all() {
            if let Err(fault) = compare(inner, &worker, &link).await {
                tracing::warn!(%worker, error = chain(&fault), "worker is not adopted yet");
            }
        }
        inner.adopted.send_replace(true);
        drive_tasks(inner);
        Ok(())
    }
}
