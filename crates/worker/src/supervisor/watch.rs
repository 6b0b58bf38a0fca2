//! Notices that a sandbox died.

use std::sync::Arc;

use types::EndedReason;

use super::{Phase, Sandbox};
use crate::core::Core;
use crate::journal::{self, Step};

impl Core {
    /// Waits for the end of its PID 1. Ends with the sandbox or the worker.
    pub(crate) fn watch(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let Some(made) = sandbox.made() else { return };
        let ended = sandbox.provider.wait(&made.runtime);
        let core = Arc::clone(self);
        let watched = Arc::clone(sandbox);
        let task = tokio::spawn(async move {
            let reason = ended.await;
            // A task of its own: a destroy that begins now ends this one.
            let tasks = core.tasks.clone();
            tasks.spawn(async move { core.died(&watched, reason).await });
        });
        sandbox.set_watch(Some(task.abort_handle()));
    }

    /// Its PID 1 is gone, and nobody asked for it.
    pub(crate) async fn died(self: &Arc<Self>, sandbox: &Arc<Sandbox>, reason: EndedReason) {
        if self.stop.is_cancelled() {
            // The next server finds out.
            return;
        }
        if sandbox.expiry().deadline <= self.clock.boot() || reason == EndedReason::Expired {
            return self.expire(sandbox).await;
        }
        let turn = sandbox.turn.lock().await;
        if sandbox.phase() == Phase::Warm {
            drop(turn);
            // Nobody knows of it.
            return drop(self.end(sandbox, reason, None).await);
        }
        if sandbox.phase() != Phase::Running {
            return;
        }
        if let Err(e) = journal::append(&sandbox.dir, &Step::Dead { reason }) {
            tracing::warn!(sandbox = %sandbox.id, error = %e, "journal not written");
        }
        sandbox.set_phase(Phase::Dead(reason));
        tracing::info!(sandbox = %sandbox.id, reason = reason.as_str(), "sandbox died");
        self.report(sandbox, false);
        if let Some(made) = sandbox.made() {
            made.guest.hang_up();
            // The record stays until it is destroyed; what it held need not.
            let released = sandbox.provider.destroy(&sandbox.id, Some(&made.runtime)).await;
            if let Err(e) = released {
                tracing::warn!(sandbox = %sandbox.id, error = %e, "release of a dead sandbox failed");
            }
        }
    }
}
