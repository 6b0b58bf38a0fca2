//! Where `control` and `worker` meet.
//!
//! [`WorkerLink`]: control asks a worker. [`ControlLink`]: a worker tells control. Each has an
//! implementation in this process and, later, one over RPC; neither side can tell which.

mod control_link;
mod images;
mod order;
mod warm;
mod worker_link;

pub use control_link::{ControlLink, Heartbeat, SandboxEnded};
pub use images::{
    ImageInfo, ImageOp, ImageReply, Prune, Pruned, PullEvent, PullProgress, PullStream,
};
pub use order::{
    ArchiveFormat, AttachOrder, ByteStream, Bytes, ExecControl, ExecEvent, ExecExit, ExecOrder,
    ExecStream, FileInfo, FileOp, FileReply, LeaseToken, OutputStream, ProviderReport, ReadRange,
    SandboxFact, SpawnOrder, Spawned, StatsReport, Stdin, TtySize,
};
pub use warm::{WarmOrder, WarmPoolReport};
pub use worker_link::{BoxFuture, WorkerLink};
