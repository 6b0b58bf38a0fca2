//! Files and the console: from the words of control to the agent's and back.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use protocol::agent::{FileEntry, Request};
use protocol::worker::{ArchiveFormat, ByteStream, FileInfo, FileOp, FileReply};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use types::failpoint::hit;
use types::{Fault, SandboxId, Timestamp};

use crate::archive::{self, Codec};
use crate::core::Core;
use crate::guest::{GuestError, Reading};
use crate::supervisor::Sandbox;

impl Core {
    pub(crate) async fn files(&self, id: &SandboxId, op: FileOp) -> Result<FileReply, Fault> {
        self.adopted().await?;
        let sandbox = self.sandbox(id)?;
        match file_op(&sandbox, op).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(sandbox.explain(error).await),
        }
    }

    pub(crate) async fn logs(&self, id: &SandboxId, lines: u32) -> Result<Vec<String>, Fault> {
        self.adopted().await?;
        let sandbox = self.sandbox(id)?;
        match sandbox.guest()?.logs(lines).await {
            Ok(lines) => Ok(lines),
            Err(error) => Err(sandbox.explain(error).await),
        }
    }
}

async fn file_op(sandbox: &Arc<Sandbox>, op: FileOp) -> Result<FileReply, GuestError> {
    let guest = sandbox.guest()?;
    match op {
        FileOp::Write { path, mode, content } => {
            write(sandbox, path, mode, content).await.map(|()| FileReply::Done)
        }
        FileOp::Read { path, range } => {
            let reading = guest.read(path, range).await?;
            let size = reading.size;
            let state = Some((reading, Arc::clone(sandbox)));
            let content = unfold(state, |state| async {
                let (mut reading, sandbox) = state?;
                match reading.next().await {
                    Ok(Some(data)) => Some((Ok(data), Some((reading, sandbox)))),
                    Ok(None) => None,
                    Err(error) => Some((Err(sandbox.explain(error).await), None)),
                }
            });
            Ok(FileReply::Content { size, content: Box::pin(content) })
        }
        FileOp::Pack { path, format } => {
            let codec = archive::packing(format)?;
            let mut reading = guest.pack(path).await?;
            // Its first piece says that there is such a directory.
            let first = reading.next().await?;
            let pump = feed_codec(reading, first, Arc::clone(sandbox), codec.input);
            let pump = AbortOnDropHandle::new(tokio::spawn(pump));
            Ok(FileReply::Archive(archive::stream(codec.output, pump)))
        }
        FileOp::Unpack { path, format, content } => {
            unpack(sandbox, path, format, content).await.map(|()| FileReply::Done)
        }
        FileOp::List { path } => {
            let entries = guest.list(path).await?;
            Ok(FileReply::Entries(entries.into_iter().map(info).collect()))
        }
        FileOp::Stat { path } => Ok(FileReply::File(info(guest.stat(path).await?))),
        FileOp::Delete { path, recursive } => {
            guest.tell(Request::Delete { path, recursive }).await.map(|()| FileReply::Done)
        }
        FileOp::Move { from, to } => {
            guest.tell(Request::Move { from, to }).await.map(|()| FileReply::Done)
        }
        FileOp::Chmod { path, mode } => {
            guest.tell(Request::Chmod { path, mode }).await.map(|()| FileReply::Done)
        }
        FileOp::Glob { pattern } => Ok(FileReply::Paths(guest.glob(pattern).await?)),
    }
}

/// Hands the content on as it comes; if it breaks off, nothing of it is seen inside.
async fn write(
    sandbox: &Sandbox,
    path: String,
    mode: Option<u32>,
    mut content: ByteStream,
) -> Result<(), GuestError> {
    hit("write.ordered");
    let writing = sandbox.guest()?.write(path, mode).await?;
    hit("write.started");
    while let Some(data) = content.next().await {
        if !writing.send(data?).await? {
            break;
        }
        hit("write.piece");
    }
    writing.finish().await?;
    hit("write.finished");
    Ok(())
}

/// Hands a tree on to the codec.
async fn feed_codec(
    mut reading: Reading,
    first: Option<Bytes>,
    sandbox: Arc<Sandbox>,
    input: mpsc::Sender<Result<Bytes, Fault>>,
) {
    let mut next = Ok(first);
    loop {
        let piece = match next {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(error) => Err(sandbox.explain(error).await),
        };
        let last = piece.is_err();
        if input.send(piece).await.is_err() || last {
            return;
        }
        next = reading.next().await;
    }
}

/// Hands an archive on as it comes; what was written when it breaks off stays.
async fn unpack(
    sandbox: &Sandbox,
    path: String,
    format: Option<ArchiveFormat>,
    mut content: ByteStream,
) -> Result<(), GuestError> {
    let Codec { input, mut output } = archive::unpacking(format)?;
    let writing = sandbox.guest()?.unpack(path).await?;
    let feeding = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(piece) = content.next().await {
            let last = piece.is_err();
            if input.send(piece).await.is_err() || last {
                return;
            }
        }
    }));
    while let Some(piece) = output.recv().await {
        if !writing.send(piece?).await? {
            break;
        }
    }
    drop(feeding);
    writing.finish().await
}

fn info(entry: FileEntry) -> FileInfo {
    FileInfo {
        path: entry.path,
        size: entry.size,
        mode: entry.mode & 0o7777,
        is_dir: entry.is_dir,
        modified: Timestamp::from_unix_nanos(i128::from(entry.mtime) * 1_000_000_000),
    }
}
