//! The way control reaches a worker in its own process.

use std::time::Duration;

use protocol::worker::{
    BoxFuture, ExecOrder, ExecStream, FileOp, FileReply, ImageOp, ImageReply, LeaseToken,
    ProviderReport, SandboxFact, SpawnOrder, Spawned, StatsReport, WorkerLink,
};
use types::{EndedReason, Fault, SandboxId, Timestamp};

use crate::worker::Worker;

impl WorkerLink for Worker {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>> {
        Box::pin(self.core.spawn(order))
    }

    fn destroy(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        reason: EndedReason,
        grace: Option<Duration>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.core.destroy(&id, &lease, reason, grace).await })
    }

    fn status(&self, id: SandboxId) -> BoxFuture<'_, Result<Option<SandboxFact>, Fault>> {
        Box::pin(async move {
            self.core.adopted().await?;
            let living = self.core.sandboxes.get(&id).map(|s| s.fact());
            Ok(living.or_else(|| self.core.outbox.gone(&id)))
        })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<SandboxFact>, Fault>> {
        Box::pin(async move {
            self.core.adopted().await?;
            // Read first: what goes meanwhile is in one of the two.
            let living = self.core.sandboxes.all();
            let mut facts: Vec<SandboxFact> = living.iter().map(|s| s.fact()).collect();
            let gone = self.core.outbox.all_gone();
            // How one ended is told until control has taken it, or control would not know why.
            facts.extend(gone.into_iter().filter(|g| {
                self.core.sandboxes.get(&g.sandbox_id).is_none()
                    && !living.iter().any(|s| s.id == g.sandbox_id)
            }));
            Ok(facts)
        })
    }

    fn extend(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        expires_at: Timestamp,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.core.extend(&id, lease, expires_at).await })
    }

    fn stats(&self, id: SandboxId) -> BoxFuture<'_, Result<StatsReport, Fault>> {
        Box::pin(async move { self.core.stats(&id).await })
    }

    fn exec(&self, order: ExecOrder) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(self.core.exec(order, None))
    }

    fn files(&self, id: SandboxId, op: FileOp) -> BoxFuture<'_, Result<FileReply, Fault>> {
        Box::pin(async move { self.core.files(&id, op).await })
    }

    fn logs(&self, id: SandboxId, lines: u32) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(async move { self.core.logs(&id, lines).await })
    }

    fn providers(&self, fresh: bool) -> BoxFuture<'_, Result<Vec<ProviderReport>, Fault>> {
        Box::pin(async move { Ok(self.core.provider_reports(fresh).await) })
    }

    fn images(&self, op: ImageOp) -> BoxFuture<'_, Result<ImageReply, Fault>> {
        Box::pin(self.core.images(op))
    }
}
