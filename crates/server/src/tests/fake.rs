//! A worker that does what its orders' words say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use protocol::worker::{
    AttachOrder, BoxFuture, ByteStream, ExecControl, ExecEvent, ExecExit, ExecOrder, ExecStream,
    FileInfo, FileOp, FileReply, ImageOp, ImageReply, LeaseToken, OutputStream, ProviderReport,
    SandboxFact, SpawnOrder, Spawned, StatsReport, Stdin, WarmOrder, WarmPoolReport, WorkerLink,
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use types::{EndedReason, ErrorCode, ExecId, Fault, SandboxId, SandboxState, Timestamp};

#[derive(Default)]
pub struct Seen {
    pub alive: Mutex<Vec<SandboxId>>,
    pub destroyed: Mutex<Vec<SandboxId>>,
    pub spawning: AtomicBool,
    pub running: AtomicUsize,
    pub cancelled: AtomicUsize,
    pub produced: AtomicUsize,
    pub written: AtomicUsize,
}

pub struct Fake {
    pub seen: Arc<Seen>,
    /// Spawns of the image `slow` wait for one of these.
    pub gate: Arc<Semaphore>,
}

/// Counts a command that was given up.
struct Cancel(Arc<Seen>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

impl Fake {
    fn facts(&self) -> Vec<SandboxFact> {
        let alive = self.seen.alive.lock().unwrap();
        let fact = |id: &SandboxId| SandboxFact {
            sandbox_id: id.clone(),
            provider: "mock".into(),
            state: SandboxState::Running,
            reason: None,
            generation: 1,
            expires_at: Timestamp::from_unix_nanos(i128::from(i64::MAX)),
        };
        alive.iter().map(fact).collect()
    }
}

pub const FLOOD_CHUNK: usize = 64 * 1024;

impl WorkerLink for Fake {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>> {
        Box::pin(async move {
            self.seen.spawning.store(true, Ordering::SeqCst);
            if order.image == "slow" {
                let _ = self.gate.acquire().await;
            }
            self.seen.alive.lock().unwrap().push(order.sandbox_id);
            Ok(Spawned { runtime_id: None })
        })
    }

    fn take_warm(&self, _: WarmOrder) -> BoxFuture<'_, Result<Option<SandboxId>, Fault>> {
        Box::pin(async { Ok(None) })
    }

    fn return_warm(&self, _: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn warm_pools(&self) -> BoxFuture<'_, Result<Vec<WarmPoolReport>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn destroy(
        &self,
        id: SandboxId,
        _: LeaseToken,
        _: EndedReason,
        _: Option<Duration>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        self.seen.alive.lock().unwrap().retain(|s| *s != id);
        self.seen.destroyed.lock().unwrap().push(id);
        Box::pin(async { Ok(()) })
    }

    fn status(&self, id: SandboxId) -> BoxFuture<'_, Result<Option<SandboxFact>, Fault>> {
        let fact = self.facts().into_iter().find(|f| f.sandbox_id == id);
        Box::pin(async { Ok(fact) })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<SandboxFact>, Fault>> {
        let facts = self.facts();
        Box::pin(async { Ok(facts) })
    }

    fn extend(
        &self,
        _: SandboxId,
        _: LeaseToken,
        _: Timestamp,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn stats(&self, _: SandboxId) -> BoxFuture<'_, Result<StatsReport, Fault>> {
        panic!("a worker with a fault of its own")
    }

    fn exec(&self, order: ExecOrder, _: Stdin) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            let word = order.argv.last().cloned().unwrap_or_default();
            seen.running.fetch_add(1, Ordering::SeqCst);
            let out = |data: Bytes| Ok(ExecEvent::Output { stream: OutputStream::Stdout, data });
            let exit = Ok(ExecEvent::Exit(ExecExit::default()));
            Ok(match word.as_str() {
                "wait" => {
                    let first = stream::iter([out(Bytes::from_static(b"begun\n"))]);
                    let guard = Cancel(seen);
                    let rest = stream::pending().map(move |never| {
                        let _held = &guard;
                        never
                    });
                    Box::pin(first.chain(rest)) as ExecStream
                }
                "flood" => Box::pin(stream::repeat_with(move || {
                    seen.produced.fetch_add(1, Ordering::SeqCst);
                    out(Bytes::from(vec![b'x'; FLOOD_CHUNK]))
                })),
                _ => Box::pin(stream::iter([out(Bytes::from(format!("{word}\n"))), exit])),
            })
        })
    }

    fn start(&self, _: ExecOrder, _: Stdin) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn attach(&self, _: AttachOrder) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(async { Err(Fault::not_found("no such command")) })
    }

    fn exec_input(
        &self,
        _: SandboxId,
        _: ExecId,
        _: ByteStream,
        _: bool,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn exec_control(
        &self,
        _: SandboxId,
        _: ExecId,
        _: ExecControl,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn exec_wait(&self, _: SandboxId, _: ExecId) -> BoxFuture<'_, Result<ExecExit, Fault>> {
        Box::pin(std::future::pending())
    }

    fn files(&self, _: SandboxId, op: FileOp) -> BoxFuture<'_, Result<FileReply, Fault>> {
        Box::pin(async move {
            Ok(match op {
                FileOp::Write { path, mut content, .. } => {
                    while let Some(piece) = content.next().await {
                        self.seen.written.fetch_add(piece?.len(), Ordering::SeqCst);
                        if path == "/full" {
                            return Err(Fault::new(ErrorCode::DiskFull, "no space left"));
                        }
                    }
                    FileReply::Done
                }
                FileOp::Read { path, .. } if path == "/short" => {
                    let piece = Ok(Bytes::from_static(b"half"));
                    FileReply::Content { size: 8, content: Box::pin(stream::iter([piece])) }
                }
                FileOp::Read { path, range } => {
                    let bytes = Bytes::from(path);
                    let size = bytes.len() as u64;
                    let part = range.map_or(0..size, |r| r.of(size).unwrap_or(0..0));
                    let bytes = bytes.slice(part.start as usize..part.end as usize);
                    FileReply::Content { size, content: Box::pin(stream::iter([Ok(bytes)])) }
                }
                FileOp::Pack { path, .. } => {
                    let bytes = Bytes::from(path);
                    FileReply::Archive(Box::pin(stream::iter([Ok(bytes)])))
                }
                FileOp::Unpack { mut content, .. } => {
                    while let Some(piece) = content.next().await {
                        self.seen.written.fetch_add(piece?.len(), Ordering::SeqCst);
                    }
                    FileReply::Done
                }
                FileOp::Stat { path } => FileReply::File(FileInfo {
                    path,
                    size: 1,
                    mode: 0o644,
                    is_dir: false,
                    modified: Timestamp::from_unix_nanos(0),
                }),
                FileOp::List { .. } => FileReply::Entries(Vec::new()),
                FileOp::Glob { .. } => FileReply::Paths(Vec::new()),
                FileOp::Delete { .. } | FileOp::Move { .. } | FileOp::Chmod { .. } => {
                    FileReply::Done
                }
            })
        })
    }

    fn logs(&self, _: SandboxId, lines: u32) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(async move { Ok(vec![lines.to_string()]) })
    }

    fn providers(&self, _: bool) -> BoxFuture<'_, Result<Vec<ProviderReport>, Fault>> {
        let report = ProviderReport {
            name: "mock".into(),
            healthy: true,
            default: true,
            latency: Duration::ZERO,
            checked_at: Timestamp::from_unix_nanos(0),
            error: None,
            capabilities: vec!["spawn".into()],
            config: [("type".to_owned(), "mock".to_owned())].into(),
        };
        Box::pin(async move { Ok(vec![report]) })
    }

    fn images(&self, op: ImageOp) -> BoxFuture<'_, Result<ImageReply, Fault>> {
        Box::pin(async move {
            match op {
                ImageOp::List => Ok(ImageReply::Images(Vec::new())),
                ImageOp::Prune(_) => Ok(ImageReply::Pruned(Default::default())),
                ImageOp::Inspect { .. }
                | ImageOp::Pull { .. }
                | ImageOp::Tag { .. }
                | ImageOp::Remove { .. } => {
                    Err(Fault::new(types::ErrorCode::ImageNotFound, "there is no such image"))
                }
            }
        })
    }
}
