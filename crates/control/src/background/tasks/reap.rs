//! Ends sandboxes whose time is up. Their worker does so too; whoever is first, the other agrees.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use types::{EndedReason, Fault};

use super::super::Next;
use crate::Control;
use crate::control::Inner;
use crate::fault::store_fault;

/// Rows handled in one run, so that one large tenant cannot hold the store.
const BATCH: u32 = 200;
/// Destroyed at the same time; a worker that hangs takes one of these places for ten seconds.
const AT_ONCE: usize = 32;

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let due = inner.store.due_sandboxes(inner.due_by(), BATCH).await.map_err(store_fault)?;
    let full = due.len() == BATCH as usize;
    let control = Control(inner.clone());
    let ended = stream::iter(due)
        .map(|s| control.end_and_wait(s.id, EndedReason::Expired, None))
        .buffer_unordered(AT_ONCE)
        .filter(|done| std::future::ready(done.is_ok()))
        .count()
        .await;
    // Rows that would not move are met again at the next tick, not in a busy loop.
    Ok(if full && ended > 0 { Next::AtOnce } else { Next::Later })
}
