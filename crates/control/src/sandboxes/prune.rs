//! Prune: destroys what is past its ttl now, without waiting for the reaper.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt};
use types::{EndedReason, Fault};

use crate::fault::store_fault;
use crate::records::may_see;
use crate::{Context, Control};

/// Rows looked at in one go.
const BATCH: u32 = 500;
/// Destroyed at the same time.
const AT_ONCE: usize = 32;

impl Control {
    /// How many of the caller's sandboxes were past their ttl and are destroyed, or will be.
    pub async fn prune(&self, ctx: &Context) -> Result<u64, Fault> {
        let inner = &self.0;
        let mut seen = HashSet::new();
        let mut pruned = 0;
        loop {
            let due =
                inner.store.due_sandboxes(inner.due_by(), BATCH).await.map_err(store_fault)?;
            let full = due.len() == BATCH as usize;
            let fresh: Vec<_> =
                due.into_iter().filter(|s| may_see(ctx, s) && seen.insert(s.id.clone())).collect();
            // Nothing new: the rest belongs to others or would not go.
            if fresh.is_empty() {
                return Ok(pruned);
            }
            pruned += stream::iter(fresh)
                .map(|s| self.end_and_wait(s.id, EndedReason::Expired, None))
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
