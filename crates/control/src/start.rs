//! The start: what the store remembers is compared with what the workers hold, then the background
//! tasks begin.

use std::time::Duration;

use types::Fault;

use crate::Control;
use crate::background::{compare, drive_tasks};
use crate::fault::{chain, store_fault};
use crate::sandboxes::{keep_history, watch_again};

/// A report is one row; a database that is busy for longer says so elsewhere.
const FIRST_REPORT: Duration = Duration::from_secs(5);

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
        watch_again(inner).await?;
        keep_history(inner);
        // The worker of this process reports in moments, and takes no sandbox before it did.
        let local = &inner.config.local_worker;
        if inner.links.has(local) {
            let heard = tokio::time::timeout(FIRST_REPORT, inner.workers.is_fresh(local));
            if heard.await.is_err() {
                tracing::warn!(worker = %local, "worker has not reported yet");
            }
        }
        inner.adopted.send_replace(true);
        drive_tasks(inner);
        Ok(())
    }
}
