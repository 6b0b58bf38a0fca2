//! Files inside a sandbox. Paths are judged where they are resolved: inside, by the agent.

use std::time::Duration;

use protocol::worker::{FileOp, FileReply};
use types::Fault;

use crate::fault::within;
use crate::{Context, Control};

/// For all that does not follow a client's own pace.
const FILES_DEADLINE: Duration = Duration::from_secs(120);

impl Control {
    /// One operation. A read answers when its content begins; content streams.
    pub async fn files(&self, ctx: &Context, id: &str, op: FileOp) -> Result<FileReply, Fault> {
        check(&op)?;
        let (sandbox, link) = self.0.usable(ctx, id).await?;
        let paced_by_client = matches!(op, FileOp::Write { .. } | FileOp::Unpack { .. });
        let work = link.files(sandbox.id, op);
        if paced_by_client {
            // Ends with the client's connection.
            work.await
        } else {
            within(FILES_DEADLINE, "the file operation", work).await
        }
    }
}

fn check(op: &FileOp) -> Result<(), Fault> {
    match op {
        FileOp::Write { path, .. }
        | FileOp::Read { path, .. }
        | FileOp::Pack { path, .. }
        | FileOp::Unpack { path, .. }
        | FileOp::List { path }
        | FileOp::Stat { path }
        | FileOp::Delete { path, .. }
        | FileOp::Chmod { path, .. } => path_is_text("path", path),
        FileOp::Move { from, to } => {
            path_is_text("old_path", from)?;
            path_is_text("new_path", to)
        }
        FileOp::Glob { pattern } => path_is_text("pattern", pattern),
    }
}

fn path_is_text(what: &str, path: &str) -> Result<(), Fault> {
    if path.trim().is_empty() {
        return Err(Fault::bad_request(format!("{what} is required")));
    }
    if path.contains('\0') {
        return Err(Fault::bad_request(format!("{what} holds a NUL character")));
    }
    Ok(())
}
