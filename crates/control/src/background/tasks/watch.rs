//! Keeps the mirror of the worker registry true, and says when a worker falls silent.

use std::sync::Arc;

use types::Fault;

use super::super::Next;
use crate::control::Inner;
use crate::fault::store_fault;

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    inner.workers.refresh(inner.store.as_ref()).await.map_err(store_fault)?;
    for (worker, freshness) in inner.workers.turned() {
        tracing::warn!(%worker, ?freshness, "worker's heartbeat");
    }
    Ok(Next::Later)
}
