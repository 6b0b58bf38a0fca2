//! Compares the store with what the workers hold, again and again (BUG-20).

use std::sync::Arc;
use std::time::Duration;

use types::Fault;

use super::super::{Next, compare};
use crate::control::Inner;
use crate::fault::chain;

/// Until every worker has been compared once, nothing is ready.
const UNTIL_ADOPTED: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let mut failed = None;
    for (worker, link) in inner.links.all() {
        if let Err(fault) = compare(inner, &worker, &link).await {
            tracing::warn!(%worker, error = chain(&fault), "worker cannot be compared");
            failed = Some(fault);
        }
    }
    match failed {
        _ if !inner.links.all_adopted() => Ok(Next::Soon(UNTIL_ADOPTED)),
        Some(fault) => Err(fault),
        None => Ok(Next::Later),
    }
}
