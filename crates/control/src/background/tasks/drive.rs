//! Goes on with what was begun and not finished: destroys that failed or that a crash cut short,
//! and spawns that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use types::{EndedReason, Fault, Sandbox};

use super::super::Next;
use crate::Control;
use crate::control::Inner;
use crate::fault::store_fault;

/// Rows looked at in one run. Those that rest between tries count too, hence the large number.
const BATCH: u32 = 2000;
const AT_ONCE: usize = 32;
/// Spawns of this process are known by name, so age says nothing about them; a clock that was set
/// back must not hide a row either.
const ANY_AGE: Duration = Duration::from_secs(365 * 86400);

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let before = inner.clock.wall().saturating_add(ANY_AGE);
    let rows = inner.store.unfinished_sandboxes(before, BATCH).await.map_err(store_fault)?;
    let now = inner.clock.boot();
    let free = |s: &Sandbox| !inner.spawning.contains(&s.id) && !inner.endings.is_busy(&s.id, now);
    let control = Control(inner.clone());
    stream::iter(rows.into_iter().filter(free))
        .map(|s| finish(inner, &control, s))
        .buffer_unordered(AT_ONCE)
        // What failed has said so, and rests until its turn comes again.
        .for_each(|_| std::future::ready(()))
        .await;
    Ok(Next::Later)
}

/// The row may be older than the mark's absence: a spawn that ended between the two is read again.
async fn finish(inner: &Arc<Inner>, control: &Control, row: Sandbox) {
    match inner.store.sandbox(row.id.clone()).await {
        // Whether its key still fetches it, the comparison with its worker says.
        Ok(Some(s)) if s.keyed && s.state == types::SandboxState::Creating => {}
        Ok(Some(s)) if !s.answered || s.state == types::SandboxState::Destroying => {
            let reason = s.ended_reason.unwrap_or(EndedReason::Unanswered);
            let _ = control.end_and_wait(s.id, reason, None).await;
        }
        _ => {}
    }
}
