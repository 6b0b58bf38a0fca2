//! Destroy: idempotent, joined by whoever asks meanwhile, never taken back.

use std::time::Duration;

use types::{EndedReason, Fault, SandboxId};

use super::ending::{Progress, begin, settled};
use crate::{Context, Control};

/// What an answer waits for; afterwards the work goes on alone.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroyed {
    Done,
    /// Intended and stored; it is gone when `GET` says 404.
    Underway,
}

impl Control {
    /// Ends a sandbox. `grace`: its programs are asked first.
    ///
    /// An id that never was, or is gone, is done; with a tenant, one that is not its own is not
    /// found. An error means that nothing was decided.
    pub async fn destroy(
        &self,
        ctx: &Context,
        id: &str,
        grace: Option<Duration>,
    ) -> Result<Destroyed, Fault> {
        let Ok(sandbox_id) = SandboxId::parse(id) else {
            // No sandbox can bear this name.
            return match ctx.tenant {
                Some(_) => Err(Fault::not_found("sandbox not found")),
                None => Ok(Destroyed::Done),
            };
        };
        if ctx.tenant.is_some() {
            self.0.record(ctx, id).await?;
        }
        self.end_and_wait(sandbox_id, EndedReason::Destroyed, grace).await
    }

    pub(crate) async fn end_and_wait(
        &self,
        id: SandboxId,
        reason: EndedReason,
        grace: Option<Duration>,
    ) -> Result<Destroyed, Fault> {
        let ending = begin(&self.0, id, reason, grace);
        match tokio::time::timeout(ANSWER_WAIT, settled(ending.clone())).await {
            Ok(Progress::Done) => Ok(Destroyed::Done),
            Ok(Progress::Refused((code, message))) => Err(Fault::new(code, message)),
            Ok(Progress::Begun | Progress::Intended | Progress::Later) => Ok(Destroyed::Underway),
            Err(_) => match &*ending.borrow() {
                Progress::Done => Ok(Destroyed::Done),
                Progress::Refused((code, message)) => Err(Fault::new(*code, message.clone())),
                Progress::Begun => Err(Fault::unavailable("the database did not answer; retry")),
                Progress::Intended | Progress::Later => Ok(Destroyed::Underway),
            },
        }
    }
}
