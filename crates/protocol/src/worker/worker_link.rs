//! What control asks of a worker.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use types::{EndedReason, ExecId, Fault, SandboxId, Timestamp};

use super::{
    AttachOrder, ByteStream, ExecControl, ExecExit, ExecOrder, ExecStream, FileOp, FileReply,
    ImageOp, ImageReply, LeaseToken, ProviderReport, SandboxFact, SpawnOrder, Spawned, StatsReport,
    Stdin, WarmOrder, WarmPoolReport,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One worker, near or far. Tunnel joins with its issue.
///
/// Every call may be repeated: spawn of a sandbox that exists under the same generation answers as
/// the first did, destroy of one that is gone succeeds. Dropping a future of `spawn`, `destroy` or
/// `extend` does not undo or stop the work.
pub trait WorkerLink: Send + Sync {
    /// Makes a sandbox; it is usable when this returns.
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>>;

    /// Hands out a sandbox from the warm pool, under the id that it has, if one fits. It is usable
    /// when this returns. The inventory leaves it out for half a minute: until then control records
    /// it, or gives it back.
    fn take_warm(&self, order: WarmOrder) -> BoxFuture<'_, Result<Option<SandboxId>, Fault>>;

    /// Gives back what [`WorkerLink::take_warm`] handed out and nobody has used or recorded.
    fn return_warm(&self, id: SandboxId) -> BoxFuture<'_, Result<(), Fault>>;

    /// The pools that it keeps.
    fn warm_pools(&self) -> BoxFuture<'_, Result<Vec<WarmPoolReport>, Fault>>;

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

    /// Starts a command. An error means that it did not start; afterwards the stream tells. Of a
    /// detached one the stream holds the command to its own pace while it is there. An exec id that
    /// was used for a detached command is refused with `Conflict`.
    fn exec(&self, order: ExecOrder, stdin: Stdin) -> BoxFuture<'_, Result<ExecStream, Fault>>;

    /// Starts a detached command and does not look at its output.
    fn start(&self, order: ExecOrder, stdin: Stdin) -> BoxFuture<'_, Result<(), Fault>>;

    /// Looks at a detached command, also at one that has ended. `NotFound`: nothing is held of it.
    fn attach(&self, order: AttachOrder) -> BoxFuture<'_, Result<ExecStream, Fault>>;

    /// Sends input to a detached command; answers when it has been taken. `close`: nothing follows.
    fn exec_input(
        &self,
        id: SandboxId,
        exec_id: ExecId,
        data: ByteStream,
        close: bool,
    ) -> BoxFuture<'_, Result<(), Fault>>;

    fn exec_control(
        &self,
        id: SandboxId,
        exec_id: ExecId,
        control: ExecControl,
    ) -> BoxFuture<'_, Result<(), Fault>>;

    /// Waits for the end of a detached command, however long it takes.
    fn exec_wait(&self, id: SandboxId, exec_id: ExecId) -> BoxFuture<'_, Result<ExecExit, Fault>>;

    fn files(&self, id: SandboxId, op: FileOp) -> BoxFuture<'_, Result<FileReply, Fault>>;

    /// The last lines of the console.
    fn logs(&self, id: SandboxId, lines: u32) -> BoxFuture<'_, Result<Vec<String>, Fault>>;

    /// The providers it has; `fresh` asks them now, else what was last seen.
    fn providers(&self, fresh: bool) -> BoxFuture<'_, Result<Vec<ProviderReport>, Fault>>;

    /// The images it stores: `NotFound` if it stores none.
    fn images(&self, op: ImageOp) -> BoxFuture<'_, Result<ImageReply, Fault>>;
}
