//! Forgets sandboxes that were destroyed and commands that ended long ago, and keys of old requests.

use std::sync::Arc;
use std::time::Duration;

use types::{Fault, Timestamp};

use super::super::Next;
use crate::control::Inner;
use crate::fault::store_fault;
use crate::sandboxes::KEY_LIFE;

/// Rows removed in one transaction: spawns wait behind it.
const BATCH: u32 = 500;

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let before = ago(inner, KEY_LIFE);
    let mut most = inner.store.purge_spawn_keys(before, BATCH).await.map_err(store_fault)?;
    let keep = inner.config.record_retention;
    if !keep.is_zero() {
        let gone = inner.store.purge_sandboxes(ago(inner, keep), BATCH).await;
        most = most.max(gone.map_err(store_fault)?);
    }
    let keep = inner.config.history.keep;
    if !keep.is_zero() {
        let gone = inner.store.purge_execs(ago(inner, keep), BATCH).await;
        most = most.max(gone.map_err(store_fault)?);
    }
    Ok(if most >= u64::from(BATCH) { Next::AtOnce } else { Next::Later })
}

fn ago(inner: &Inner, time: Duration) -> Timestamp {
    let time = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_unix_nanos(inner.clock.wall().unix_nanos().saturating_sub(time))
}
