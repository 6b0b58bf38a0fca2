//! Forgets sandboxes that were destroyed, and commands that ended, long ago.

use std::sync::Arc;

use types::{Fault, Timestamp};

use super::super::Next;
use crate::control::Inner;
use crate::fault::store_fault;

/// Rows removed in one transaction: spawns wait behind it.
const BATCH: u32 = 500;

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let keep = inner.config.record_retention;
    if keep.is_zero() {
        return Ok(Next::Later);
    }
    let keep = i128::try_from(keep.as_nanos()).unwrap_or(i128::MAX);
    let before = Timestamp::from_unix_nanos(inner.clock.wall().unix_nanos().saturating_sub(keep));
    let gone = inner.store.purge_sandboxes(before, BATCH).await.map_err(store_fault)?;
    let ended = inner.store.purge_execs(before, BATCH).await.map_err(store_fault)?;
    Ok(if gone.max(ended) >= u64::from(BATCH) { Next::AtOnce } else { Next::Later })
}
