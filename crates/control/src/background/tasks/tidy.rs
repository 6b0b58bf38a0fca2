//! Removes images that nobody used for long, as far as that is wanted.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{ImageOp, Prune};
use types::{ErrorCode, Fault};

use super::super::Next;
use crate::control::Inner;
use crate::fault::within;

/// Removing a large tree takes a while.
const DEADLINE: Duration = Duration::from_secs(600);

pub(super) async fn run(inner: &Arc<Inner>) -> Result<Next, Fault> {
    let keep = &inner.config.images;
    let what = Prune {
        unused_for: (!keep.unused_for.is_zero()).then_some(keep.unused_for),
        keep_bytes: (keep.bytes > 0).then_some(keep.bytes),
        ..Prune::default()
    };
    if what == Prune::default() {
        return Ok(Next::Later);
    }
    for (worker, link) in inner.links.all() {
        let pruned = link.images(ImageOp::Prune(what.clone()));
        match within(DEADLINE, "removing old images", pruned).await {
            Ok(_) => {}
            // A worker that keeps none.
            Err(fault) if fault.code == ErrorCode::NotFound => {}
            Err(fault) => {
                tracing::warn!(%worker, error = %fault, "old images stay until next time");
            }
        }
    }
    Ok(Next::Later)
}
