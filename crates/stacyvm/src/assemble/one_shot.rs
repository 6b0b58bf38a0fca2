//! `run`: one command in a sandbox that ends with it, without a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use protocol::worker::{
    ByteStream, ExecControl, ExecEvent, ExecExit, ExecOrder, ExecStream, LeaseToken, OutputStream,
    SpawnOrder, Stdin, TtySize, WorkerLink,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::io::ReaderStream;
use types::clock::{Clock, SystemClock};
use types::{EndedReason, ExecId, Fault, SandboxId, SandboxSize, Timestamp, WorkerId};
use worker::{NoControl, Worker, WorkerConfig};

use super::run_dir::{self, INSTALLATION, RunDir};
use super::{DataDir, Signals, default_only};
use crate::config::Config;
use crate::failure::Failure;
use crate::terminal::{self, Raw};

/// A sandbox without a deadline of its own ends with this process; the agent wants a number.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// Destroying takes less than a millisecond; what takes longer is swept by the next run.
const DESTROY_DEADLINE: Duration = Duration::from_secs(10);

/// Columns and rows where nobody says.
const USUAL: (u16, u16) = (80, 24);

/// What to run and in what.
pub struct OneShot {
    pub image: String,
    pub size: SandboxSize,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    pub timeout: Option<Duration>,
    /// Pass our stdin on.
    pub input: bool,
    pub user: Option<String>,
    /// A terminal, shown on ours.
    pub tty: bool,
}

/// How it went.
pub enum Ended {
    Exit(ExecExit),
    /// A signal ended us first.
    Signal(super::Signal),
}

/// Makes a sandbox, runs the command in it, and removes it; also when a signal comes.
pub async fn run_once(config: &Config, what: OneShot) -> Result<Ended, Failure> {
    let mut signals = Signals::catch()?;
    let data_dir =
        DataDir::open(&PathBuf::from(&config.data_dir)).map_err(|e| Failure::new(e.to_string()))?;
    let dir = RunDir::make(&data_dir)?;
    let result = in_folder(config, &data_dir, &dir, what, &mut signals).await;
    dir.remove();
    run_dir::sweep(config, &data_dir).await;
    result
}

async fn in_folder(
    config: &Config,
    data_dir: &DataDir,
    dir: &RunDir,
    what: OneShot,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let started = default_only(config, data_dir, dir.path(), INSTALLATION).await?;
    let id = WorkerId::parse("run").expect("a valid id");
    let mut worker = WorkerConfig::new(id.clone(), dir.path().to_owned(), INSTALLATION);
    worker.tied = true;
    worker.spare_folders = 0;
    let clock = Arc::new(SystemClock);
    let worker =
        match Worker::start(worker, started.providers.clone(), Arc::new(NoControl), clock).await {
            Ok(worker) => worker,
            Err(fault) => {
                started.close().await;
                return Err(fault.into());
            }
        };
    let result = with_worker(&worker, config, id, what, signals).await;
    worker.shutdown().await;
    drop(worker);
    started.close().await;
    result
}

async fn with_worker(
    worker: &Worker,
    config: &Config,
    holder: WorkerId,
    what: OneShot,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let id = sandbox_id()?;
    let expires_at = SystemClock.wall().saturating_add(NO_END);
    let lease =
        LeaseToken { resource_id: id.clone(), holder_id: holder, generation: 1, expires_at };
    let order = spawn_order(config, &id, &lease, expires_at, &what);
    let result = tokio::select! {
        done = spawn_and_exec(worker, order, what) => done.map(Ended::Exit),
        signal = signals.next() => Ok(Ended::Signal(signal)),
    };
    let destroyed = worker.destroy(id, lease, EndedReason::Destroyed, None);
    match tokio::time::timeout(DESTROY_DEADLINE, destroyed).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) if result.is_ok() => return Err(fault.into()),
        Ok(Err(_)) => {}
        Err(_) => tracing::warn!("the sandbox does not end: the next run removes it"),
    }
    result
}

async fn spawn_and_exec(
    worker: &Worker,
    order: SpawnOrder,
    what: OneShot,
) -> Result<ExecExit, Failure> {
    let sandbox_id = order.sandbox_id.clone();
    worker.spawn(order).await?;
    let order = ExecOrder {
        sandbox_id,
        exec_id: ExecId::parse("run").expect("a valid id"),
        argv: what.argv,
        env: what.env,
        workdir: what.workdir,
        timeout: what.timeout,
        user: what.user,
        tty: what.tty.then(|| terminal::size().unwrap_or(USUAL)).map(tty_size),
        detach: false,
    };
    let (sandbox_id, exec_id) = (order.sandbox_id.clone(), order.exec_id.clone());
    let input = if what.input { Stdin::Stream(stdin()) } else { Stdin::Empty };
    let events = worker.exec(order, input).await?;
    if !what.tty {
        return relay(events).await;
    }
    let raw = match what.input.then(Raw::enter).transpose() {
        Ok(raw) => raw.flatten(),
        Err(e) => return Err(Failure::because("cannot use the terminal", &e)),
    };
    let ended = tokio::select! {
        ended = relay(events) => ended,
        failed = follow_size(worker, sandbox_id, exec_id) => Err(failed),
    };
    drop(raw);
    ended
}

/// Passes each new size of our terminal on.
async fn follow_size(worker: &Worker, id: SandboxId, exec_id: ExecId) -> Failure {
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(e) => return Failure::because("cannot watch the terminal", &e),
    };
    while resized.recv().await.is_some() {
        let Some(size) = terminal::size() else { continue };
        let control = ExecControl::Resize(tty_size(size));
        // One that has ended needs no size.
        let _ = worker.exec_control(id.clone(), exec_id.clone(), control).await;
    }
    std::future::pending().await
}

fn tty_size((cols, rows): (u16, u16)) -> TtySize {
    TtySize { cols, rows }
}

/// Hands output on as it comes; a reader that is slow slows the command down.
async fn relay(events: ExecStream) -> Result<ExecExit, Failure> {
    let mut events = pin!(events);
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Output { stream: OutputStream::Stdout, data } => {
                write(&mut out, &data).await?;
            }
            ExecEvent::Output { stream: OutputStream::Stderr, data } => {
                write(&mut err, &data).await?;
            }
            // Only of commands that are attached to.
            ExecEvent::Gap { .. } | ExecEvent::Paused => {}
            ExecEvent::Exit(exit) => return Ok(exit),
        }
    }
    Err(Failure::new("the sandbox was lost: the command's end is not known"))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

fn stdin() -> ByteStream {
    let failed = |e| Fault::unavailable("reading the input failed").caused_by(e);
    Box::pin(ReaderStream::new(tokio::io::stdin()).map_err(failed))
}

fn spawn_order(
    config: &Config,
    id: &SandboxId,
    lease: &LeaseToken,
    expires_at: Timestamp,
    what: &OneShot,
) -> SpawnOrder {
    SpawnOrder {
        sandbox_id: id.clone(),
        lease: lease.clone(),
        provider: config.providers.default.clone(),
        image: what.image.clone(),
        size: what.size,
        owner_id: None,
        expires_at,
        metadata: BTreeMap::new(),
    }
}

fn sandbox_id() -> Result<SandboxId, Failure> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|e| Failure::because("no randomness", &e))?;
    Ok(SandboxId::from_random(bytes))
}
