//! Prune: destroys what is past its ttl now, without waiting for the reaper, or what is in another
//! state if that is said.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt};
use types::{EndedReason, Fault, SandboxState};

use super::Finding;
use crate::{Context, Control};

/// Rows looked at in one go.
const BATCH: u32 = 500;
/// Destroyed at the same time.
const AT_ONCE: usize = 32;

impl Control {
    /// How many of the caller's sandboxes are meant and are destroyed, or will be. Without a state
    /// those are meant whose ttl is over.
    pub async fn prune(&self, ctx: &Context, mut finding: Finding) -> Result<u64, Fault> {
        let (reason, gone) = match *finding.state.get_or_insert(SandboxState::Expired) {
            SandboxState::Expired => (EndedReason::Expired, false),
            SandboxState::Destroying | SandboxState::Destroyed => (EndedReason::Destroyed, true),
            SandboxState::Creating
            | SandboxState::Running
            | SandboxState::Unhealthy
            | SandboxState::Error => (EndedReason::Destroyed, false),
        };
        if gone {
            return Ok(0);
        }
        let mut seen = HashSet::new();
        let mut after = None;
        let mut pruned = 0;
        loop {
            let found = self.find(ctx, &finding, after, Some(BATCH)).await?;
            let full = found.len() == BATCH as usize;
            after = found.last().map(|s| (s.created_at, s.id.clone()));
            // The list goes on behind the last one, so that what would not go is met once.
            pruned += stream::iter(found.into_iter().filter(|s| seen.insert(s.id.clone())))
                .map(|s| self.end_and_wait(s.id, reason, None))
                .buffer_unordered(AT_ONCE)
                .filter(|done| std::future::ready(done.is_ok()))
                .count()
                .await as u64;
            if !full {
                return Ok(pruned);
            }
        }
    }
}
