//! Extend: a new end of life, counted from now. It may be an earlier one.
//!
//! A sandbox lives until the earlier of what its record and what its worker say. So the record
//! never promises more than the worker holds: a longer life is told to the worker first, a shorter
//! one is stored first. A crash in between leaves the old end (the caller had no answer), or the
//! shorter one that was asked for; never an end that nobody asked for.

use std::time::Duration;

use store::Change;
use types::{Fault, Sandbox, SandboxState, Timestamp};

use crate::admission::check_ttl;
use crate::fault::{chain, ended, store_fault, within};
use crate::{Context, Control};

const EXTEND_DEADLINE: Duration = Duration::from_secs(30);

impl Control {
    /// `ttl`: above zero, at most `max_ttl`.
    pub async fn extend(&self, ctx: &Context, id: &str, ttl: Duration) -> Result<Sandbox, Fault> {
        let inner = &self.0;
        if ttl.is_zero() {
            return Err(Fault::bad_request("ttl must be above zero"));
        }
        check_ttl(&inner.config.defaults, ttl)?;
        let (sandbox, link) = inner.usable(ctx, id).await?;
        let expires_at = inner.clock.wall().saturating_add(ttl);
        let later = Sandbox { expires_at: expires_at.max(sandbox.expires_at), ..sandbox.clone() };
        let lease = inner.lease(&later);
        let work = link.extend(sandbox.id.clone(), lease, expires_at);
        let work = within(EXTEND_DEADLINE, "the extend", work);
        if expires_at > sandbox.expires_at {
            work.await?;
            self.store_end(&sandbox, expires_at).await
        } else {
            let stored = self.store_end(&sandbox, expires_at).await?;
            if let Err(fault) = work.await {
                // The reaper holds to the record.
                tracing::warn!(sandbox = %sandbox.id, error = chain(&fault), "worker keeps the later end");
            }
            Ok(stored)
        }
    }

    async fn store_end(&self, sandbox: &Sandbox, expires_at: Timestamp) -> Result<Sandbox, Fault> {
        let inner = &self.0;
        let change = Change {
            only_from: vec![SandboxState::Running, SandboxState::Unhealthy],
            expires_at: Some(expires_at),
            generation: Some(sandbox.generation),
            ..Change::default()
        };
        let changed = inner.store.change_sandbox(sandbox.id.clone(), change).await;
        match changed.map_err(store_fault)? {
            Some(changed) => Ok(inner.shown(changed)),
            // It ended meanwhile; its record says how.
            None => {
                let now = inner.store.sandbox(sandbox.id.clone()).await.map_err(store_fault)?;
                Err(ended(now.as_ref().unwrap_or(sandbox)))
            }
        }
    }
}
