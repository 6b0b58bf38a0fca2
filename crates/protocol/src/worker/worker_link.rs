//! What control asks of a worker.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use types::{EndedReason, Fault, SandboxId, Timestamp};

use super::{
    ExecOrder, ExecStream, FileOp, FileReply, ImageOp, ImageReply, LeaseToken, ProviderReport,
    SandboxFact, SpawnOrder, Spawned, StatsReport,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One worker, near or far. Attach, stdin, signal, pty and tunnel join with their issues.
///
/// Every call may be repeated: spawn of a sandbox that exists under the same generation answers as
/// the first did, destroy of one that is gone succeeds. Dropping a future of `spawn`, `destroy` or
/// `extend` does not undo or stop the work.
pub trait WorkerLink: Send + Sync {
    /// Makes a sandbox; it is usable when this returns.
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>>;

    /// Ends a sandbox and removes all its traces. `grace`: ask first. Unknown ids succeed.
    fn destroy(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        reason: EndedReason,
        grace: Option<Duration>,
    ) -> BoxFuture<'_, Result<(), Fault>>;

    /// What the worker knows of it now; `None` if nothing.
    fn status(&self, id: SandboxId) -> BoxFuture<'_, Result<Option<SandboxFact>, Fault>>;

    /// Everything it holds. Answers only once adoption is done.
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<SandboxFact>, Fault>>;

    /// A new end of life.
    fn extend(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        expires_at: Timestamp,
    ) -> BoxFuture<'_, Result<(), Fault>>;

    fn stats(&self, id: SandboxId) -> BoxFuture<'_, Result<StatsReport, Fault>>;

    /// Starts a command. An error means that it did not start; afterwards the stream tells.
    fn exec(&self, order: ExecOrder) -> BoxFuture<'_, Result<ExecStream, Fault>>;

    fn files(&self, id: SandboxId, op: FileOp) -> BoxFuture<'_, Result<FileReply, Fault>>;

    /// The last lines of the console.
    fn logs(&self, id: SandboxId, lines: u32) -> BoxFuture<'_, Result<Vec<String>, Fault>>;

    /// The providers it has; `fresh` asks them now, else what was last seen.
    fn providers(&self, fresh: bool) -> BoxFuture<'_, Result<Vec<ProviderReport>, Fault>>;

    /// The images it stores: `NotFound` if it stores none.
    fn images(&self, op: ImageOp) -> BoxFuture<'_, Result<ImageReply, Fault>>;
}
