//! Moves the end of a sandbox.

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::Request;
use protocol::worker::LeaseToken;
use types::{Fault, SandboxId, Timestamp};

use super::Sandbox;
use super::spawn::journal_fault;
use crate::core::Core;
use crate::journal::{self, Step};

/// An agent answers in microseconds; one that does not within this is not going to.
pub(crate) const AGENT_DEADLINE: Duration = Duration::from_secs(10);

impl Core {
    /// Gives a sandbox a new end.
    pub(crate) async fn extend(
        self: &Arc<Self>,
        id: &SandboxId,
        lease: LeaseToken,
        expires_at: Timestamp,
    ) -> Result<(), Fault> {
        self.adopted().await?;
        self.check_lease(id, &lease)?;
        let sandbox = self.sandbox(id)?;
        sandbox.check_generation(&lease)?;
        let core = Arc::clone(self);
        let work = self.tasks.spawn(async move {
            let _turn = sandbox.turn.lock().await;
            // Again: somebody newer may have come in between.
            sandbox.check_generation(&lease)?;
            core.move_end(&sandbox, lease.generation, expires_at).await
        });
        work.await.unwrap_or_else(|e| {
            Err(Fault::internal("extending the sandbox was interrupted").caused_by(e))
        })
    }

    async fn move_end(
        &self,
        sandbox: &Sandbox,
        generation: u64,
        expires_at: Timestamp,
    ) -> Result<(), Fault> {
        let guest = sandbox.guest()?;
        let expiry = self.expiry_at(expires_at);
        // The agent first: one that was not told would end by itself, too early.
        let boot_nanos = self.agent_deadline(expiry.deadline).nanos();
        let told = guest.tell(Request::Deadline { boot_nanos });
        match tokio::time::timeout(AGENT_DEADLINE, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(sandbox.explain(error).await),
            Err(_) => {
                return Err(Fault::unavailable(format!("sandbox {} does not answer", sandbox.id)));
            }
        }
        let step = Step::Extended { generation, expires_at, deadline: expiry.deadline };
        journal::append(&sandbox.dir, &step).map_err(journal_fault)?;
        sandbox.raise_generation(generation);
        sandbox.set_expiry(expiry);
        self.ttl.set(&sandbox.id, expiry.deadline);
        Ok(())
    }
}
