//! Records of sandboxes: finding the one a caller means, and moving it towards its end.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{LeaseToken, WorkerLink};
use store::{Change, StoreError};
use types::{EndedReason, ErrorCode, Fault, Sandbox, SandboxId, SandboxState};

use crate::Context;
use crate::control::Inner;
use crate::fault::{ended, store_fault, unknown};
use crate::state::{WorkerFact, public};

/// A lease outlives its sandbox by so much, so that the one who ends it still holds it.
const LEASE_GRACE: Duration = Duration::from_secs(5 * 60);

impl Inner {
    /// Reads the id in a path. What is no id names no sandbox.
    pub fn sandbox_id(&self, text: &str) -> Result<SandboxId, Fault> {
        SandboxId::parse(text).map_err(|_| Fault::not_found("sandbox not found"))
    }

    /// The record a caller means, also of a destroyed one; another tenant's is not there.
    pub async fn record(&self, ctx: &Context, id: &str) -> Result<Sandbox, Fault> {
        let id = self.sandbox_id(id)?;
        let found = self.store.sandbox(id.clone()).await.map_err(store_fault)?;
        match found {
            Some(sandbox) if may_see(ctx, &sandbox) => Ok(sandbox),
            Some(_) | None => Err(unknown(&id)),
        }
    }

    /// The record and the worker of a sandbox that can be worked with now.
    pub async fn usable(
        &self,
        ctx: &Context,
        id: &str,
    ) -> Result<(Sandbox, Arc<dyn WorkerLink>), Fault> {
        let sandbox = self.record(ctx, id).await?;
        let id = &sandbox.id;
        match self.public_state(&sandbox) {
            SandboxState::Running | SandboxState::Unhealthy => {}
            SandboxState::Creating => {
                return Err(Fault::unavailable(format!("sandbox {id} is still being created")));
            }
            SandboxState::Expired => return Err(expired(&sandbox)),
            SandboxState::Destroying | SandboxState::Destroyed => return Err(ended(&sandbox)),
            SandboxState::Error => {
                let how = sandbox.ended_reason.unwrap_or(EndedReason::Crashed).in_words();
                return Err(Fault::new(ErrorCode::SandboxDead, format!("sandbox {id} {how}")));
            }
        }
        let link = self.link_of(&sandbox)?;
        Ok((sandbox, link))
    }

    /// The worker of a sandbox.
    pub fn link_of(&self, sandbox: &Sandbox) -> Result<Arc<dyn WorkerLink>, Fault> {
        self.links.get(&sandbox.worker_id).ok_or_else(|| {
            let id = &sandbox.id;
            Fault::unavailable(format!("the worker of sandbox {id} cannot be reached; retry"))
        })
    }

    pub fn public_state(&self, sandbox: &Sandbox) -> SandboxState {
        let due = sandbox.expires_at <= self.due_by();
        let reachable =
            self.links.has(&sandbox.worker_id) && !self.workers.is_offline(&sandbox.worker_id);
        let worker = if reachable { WorkerFact::Reachable } else { WorkerFact::Away };
        public(sandbox.state, due, worker)
    }

    /// The record as callers see it.
    pub fn shown(&self, mut sandbox: Sandbox) -> Sandbox {
        sandbox.state = self.public_state(&sandbox);
        if sandbox.state == SandboxState::Expired && sandbox.ended_reason.is_none() {
            sandbox.ended_reason = Some(EndedReason::Expired);
        }
        sandbox
    }

    pub fn lease(&self, sandbox: &Sandbox) -> LeaseToken {
        LeaseToken {
            resource_id: sandbox.id.clone(),
            holder_id: sandbox.worker_id.clone(),
            generation: sandbox.generation,
            expires_at: sandbox.expires_at.max(self.clock.wall()).saturating_add(LEASE_GRACE),
        }
    }

    /// Marks a sandbox as gone for good. The only way there: the worker's seat is freed here.
    pub async fn end(
        &self,
        id: &SandboxId,
        generation: u64,
        reason: EndedReason,
        only_from: Vec<SandboxState>,
    ) -> Result<Option<Sandbox>, StoreError> {
        let change = Change {
            state: Some(SandboxState::Destroyed),
            only_from,
            ended_reason: Some(reason),
            generation: Some(generation),
            ..Change::default()
        };
        let gone = self.store.change_sandbox(id.clone(), change).await?;
        if let Some(sandbox) = &gone {
            self.workers.release(&sandbox.worker_id);
        }
        Ok(gone)
    }
}

pub(crate) fn may_see(ctx: &Context, sandbox: &Sandbox) -> bool {
    ctx.tenant.is_none() || ctx.tenant == sandbox.tenant_id
}

pub(crate) fn expired(sandbox: &Sandbox) -> Fault {
    Fault::not_found(format!("sandbox {} {}", sandbox.id, EndedReason::Expired.in_words()))
}
