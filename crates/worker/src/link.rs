//! The way control reaches a worker in its own process.

use std::time::Duration;

use protocol::worker::{
    AttachOrder, BoxFuture, ByteStream, ExecControl, ExecExit, ExecOrder, ExecStream, FileOp,
    FileReply, ImageOp, ImageReply, LeaseToken, ProviderReport, SandboxFact, SpawnOrder, Spawned,
    StatsReport, Stdin, WarmOrder, WarmPoolReport, WorkerLink,
};
use types::{EndedReason, ExecId, Fault, SandboxId, Timestamp};

use crate::worker::Worker;

impl WorkerLink for Worker {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>> {
        Box::pin(self.core.spawn(order))
    }

    fn take_warm(&self, order: WarmOrder) -> BoxFuture<'_, Result<Option<SandboxId>, Fault>> {
        Box::pin(self.core.take_warm(order))
    }

    fn return_warm(&self, id: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.core.return_warm(&id).await })
    }

    fn warm_pools(&self) -> BoxFuture<'_, Result<Vec<WarmPoolReport>, Fault>> {
        Box::pin(std::future::ready(Ok(self.core.warm_pools())))
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
            let living = self.core.sandboxes.get(&id).filter(|s| !s.waits()).map(|s| s.fact());
            Ok(living.or_else(|| self.core.outbox.gone(&id)))
        })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<SandboxFact>, Fault>> {
        Box::pin(async move {
            self.core.adopted().await?;
            // Read first: what goes meanwhile is in one of the two.
            let living = self.core.sandboxes.all();
            let now = self.core.clock.boot();
            let told = living.iter().filter(|s| !s.waits() && !s.is_lent(now));
            let mut facts: Vec<SandboxFact> = told.map(|s| s.fact()).collect();
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

    fn exec(&self, order: ExecOrder, stdin: Stdin) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(self.core.exec(order, stdin))
    }

    fn start(&self, order: ExecOrder, stdin: Stdin) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.core.start(order, stdin))
    }

    fn attach(&self, order: AttachOrder) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(self.core.attach(order))
    }

    fn exec_input(
        &self,
        id: SandboxId,
        exec_id: ExecId,
        data: ByteStream,
        close: bool,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.core.exec_input(&id, &exec_id, data, close).await })
    }

    fn exec_control(
        &self,
        id: SandboxId,
        exec_id: ExecId,
        control: ExecControl,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.core.exec_control(&id, &exec_id, control).await })
    }

    fn exec_wait(&self, id: SandboxId, exec_id: ExecId) -> BoxFuture<'_, Result<ExecExit, Fault>> {
        Box::pin(async move { self.core.exec_wait(&id, &exec_id).await })
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
