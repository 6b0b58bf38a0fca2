//! Waiting for the ends of commands with a record, also of those that an earlier server started.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use protocol::worker::{AttachOrder, ExecEvent, ExecExit, OutputStream, WorkerLink};
use store::{ExecEnd, ExecOutput, LOST};
use types::{EndedReason, ErrorCode, ExecId, Fault, SandboxId, SandboxState};

use super::history::{end_of, lost_for};
use crate::control::Inner;
use crate::fault::{chain, store_fault};

/// The agent holds less of one command; whatever it says, no more is kept.
const OUTPUT: usize = 1 << 20;
/// Between looks at output that nobody fetches, so that a sandbox that dies does not take all of it
/// along: twice as long each time that there is nothing new.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(20);
/// Where there is something new, the next look comes soon, but no more than so many bytes are kept in
/// a second: a thousand commands that never stop writing leave the store its breath.
const KEPT_A_SECOND: usize = 8 << 10;
/// Between tries while the worker or the store is away.
const PAUSE: Duration = Duration::from_millis(500);
/// What the end of a sandbox waits for the last output of its commands.
const LAST_LOOK: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 32;

/// Which commands are waited for.
#[derive(Default)]
pub(crate) struct Watching(Mutex<HashMap<SandboxId, HashSet<ExecId>>>);

impl Watching {
    fn all(&self) -> MutexGuard<'_, HashMap<SandboxId, HashSet<ExecId>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn of(&self, id: &SandboxId) -> Vec<ExecId> {
        self.all().get(id).map(|execs| execs.iter().cloned().collect()).unwrap_or_default()
    }
}

/// One command that is waited for.
struct Watched {
    inner: Arc<Inner>,
    of: SandboxId,
    exec_id: ExecId,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.inner.watching.all();
        if let Some(execs) = all.get_mut(&self.of) {
            execs.remove(&self.exec_id);
            if execs.is_empty() {
                all.remove(&self.of);
            }
        }
    }
}

/// Sees to it that a command's end is recorded. `runs`: it is known to have started.
pub(crate) fn watch(inner: &Arc<Inner>, of: SandboxId, exec_id: ExecId, runs: bool) {
    if !inner.watching.all().entry(of.clone()).or_default().insert(exec_id.clone()) {
        return;
    }
    let watched = Watched { inner: Arc::clone(inner), of, exec_id };
    let stopping = inner.stopping.clone();
    inner.tracker.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = watched.run(runs) => {}
        }
    });
}

/// Waits again for what ran when an earlier server ended.
pub(crate) async fn watch_again(inner: &Arc<Inner>) -> Result<(), Fault> {
    for record in inner.store.running_execs().await.map_err(store_fault)? {
        watch(inner, record.sandbox_id, record.exec_id, false);
    }
    Ok(())
}

/// As [`last_words`], for a worker that ends a sandbox by itself.
pub(crate) async fn last_words_of(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    if inner.watching.of(id).is_empty() {
        return Ok(());
    }
    let sandbox = inner.store.sandbox(id.clone()).await.map_err(store_fault)?;
    if let Some(link) = sandbox.and_then(|sandbox| inner.links.get(&sandbox.worker_id)) {
        last_words(inner, &link, id).await;
    }
    Ok(())
}

/// A sandbox is about to end: what its commands have said is fetched first.
pub(crate) async fn last_words(inner: &Inner, link: &Arc<dyn WorkerLink>, id: &SandboxId) {
    let execs = inner.watching.of(id);
    if execs.is_empty() {
        return;
    }
    let fetch = stream::iter(execs).for_each_concurrent(AT_ONCE, |exec_id| async move {
        if let Ok(output) = fetch(link, id, &exec_id).await {
            let kept = inner.store.end_exec(id.clone(), exec_id, None, Some(output)).await;
            if let Err(error) = kept {
                tracing::warn!(sandbox = %id, %error, "the last output of a command is not kept");
            }
        }
    });
    // An end waits for nobody: what is not there by then is lost, and said to be.
    let _ = tokio::time::timeout(LAST_LOOK, fetch).await;
}

enum Heard {
    Ended(ExecExit),
    /// Nobody will ever know.
    Lost(EndedReason),
    /// It never ran.
    Nothing,
    /// Its sandbox has ended, and its record with it.
    Over,
    Later,
}

impl Watched {
    async fn run(&self, mut runs: bool) {
        loop {
            if runs && self.note_started().await.is_err() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            runs = false;
            let done = match self.hear().await {
                Ok(Heard::Ended(exit)) => self.ended(exit).await,
                Ok(Heard::Lost(reason)) => self.lost(reason).await,
                Ok(Heard::Nothing) => {
                    let forget = self.inner.store.forget_exec(self.of.clone(), self.exec_id());
                    forget.await.map(drop).map_err(store_fault)
                }
                Ok(Heard::Over) => return,
                Ok(Heard::Later) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(fault) => Err(fault),
            };
            match done {
                Ok(()) => return,
                Err(fault) => {
                    tracing::warn!(
                        sandbox = %self.of, exec = %self.exec_id, error = chain(&fault),
                        "the end of a command is not recorded yet"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn exec_id(&self) -> ExecId {
        self.exec_id.clone()
    }

    async fn note_started(&self) -> Result<(), Fault> {
        let at = self.inner.clock.wall();
        let noted = self.inner.store.exec_started(self.of.clone(), self.exec_id(), at).await;
        noted.map(drop).map_err(store_fault)
    }

    async fn link(&self) -> Result<Option<Arc<dyn WorkerLink>>, Fault> {
        let sandbox = self.inner.store.sandbox(self.of.clone()).await.map_err(store_fault)?;
        Ok(match sandbox {
            Some(sandbox) if !sandbox.state.is_final() => self.inner.links.get(&sandbox.worker_id),
            Some(_) | None => None,
        })
    }

    /// Waits for the end, and looks at the output now and then.
    async fn hear(&self) -> Result<Heard, Fault> {
        let Some(link) = self.link().await? else { return self.about_sandbox().await };
        let mut waiting = link.exec_wait(self.of.clone(), self.exec_id());
        let (mut pause, mut seen) = (FIRST_LOOK, 0);
        let fault = loop {
            tokio::select! {
                heard = &mut waiting => match heard {
                    Ok(exit) => return Ok(Heard::Ended(exit)),
                    Err(fault) => break fault,
                },
                () = tokio::time::sleep(pause) => {}
            }
            self.note_started().await?;
            pause = (pause * 2).min(LONGEST_LOOK);
            if let Ok(true) = grew(&link, &self.of, &self.exec_id, seen).await
                && let Ok(output) = fetch(&link, &self.of, &self.exec_id).await
            {
                seen = output.total();
                pause = pause_after(output.bytes.len());
                let keep =
                    self.inner.store.end_exec(self.of.clone(), self.exec_id(), None, Some(output));
                keep.await.map_err(store_fault)?;
            }
        };
        if fault.code == ErrorCode::NotFound {
            let status = link.status(self.of.clone()).await?;
            if status.is_some_and(|fact| fact.state == SandboxState::Running) {
                // The sandbox is there and knows no such command.
                let record = self.inner.store.exec(self.of.clone(), self.exec_id());
                let record = record.await.map_err(store_fault)?;
                return Ok(match record.map(|r| r.started_at) {
                    Some(Some(_)) => Heard::Lost(EndedReason::Lost),
                    Some(None) => Heard::Nothing,
                    None => Heard::Over,
                });
            }
        }
        self.about_sandbox().await
    }

    /// The command cannot be asked for: what is known of its sandbox?
    async fn about_sandbox(&self) -> Result<Heard, Fault> {
        let sandbox = self.inner.store.sandbox(self.of.clone()).await.map_err(store_fault)?;
        Ok(match sandbox {
            None => Heard::Over,
            Some(sandbox) if sandbox.state.is_final() => {
                Heard::Lost(sandbox.ended_reason.unwrap_or(EndedReason::Lost))
            }
            Some(sandbox) if sandbox.state == SandboxState::Error => {
                Heard::Lost(sandbox.ended_reason.unwrap_or(EndedReason::Crashed))
            }
            Some(_) => Heard::Later,
        })
    }

    async fn ended(&self, exit: ExecExit) -> Result<(), Fault> {
        let output = self.last_output().await?;
        let end = ExecEnd {
            // How it ended is known, what it said in the end is not.
            lost: output.is_none().then(|| LOST.to_owned()),
            ..end_of(&self.inner, &exit)
        };
        // It may have ended before anybody heard that it runs.
        self.note_started().await?;
        let store = &self.inner.store;
        let recorded = store.end_exec(self.of.clone(), self.exec_id(), Some(end), output).await;
        recorded.map_err(store_fault)
    }

    /// What the sandbox holds of a command that has ended; `None` if nobody will ever know. An error
    /// is worth another try.
    async fn last_output(&self) -> Result<Option<ExecOutput>, Fault> {
        let Some(link) = self.link().await? else { return Ok(None) };
        match fetch(&link, &self.of, &self.exec_id).await {
            Ok(output) => Ok(Some(output)),
            Err(fault) if fault.code == ErrorCode::Unavailable => Err(fault),
            Err(fault) => {
                tracing::debug!(sandbox = %self.of, error = chain(&fault), "output is lost");
                Ok(None)
            }
        }
    }

    async fn lost(&self, reason: EndedReason) -> Result<(), Fault> {
        let end = lost_for(&self.inner, reason.as_str());
        let store = &self.inner.store;
        let recorded = store.end_exec(self.of.clone(), self.exec_id(), Some(end), None).await;
        recorded.map_err(store_fault)
    }
}

fn pause_after(kept: usize) -> Duration {
    let seconds = (kept / KEPT_A_SECOND) as u64;
    Duration::from_secs(seconds).max(FIRST_LOOK)
}

/// Whether there is more of a command's output than so much.
async fn grew(
    link: &Arc<dyn WorkerLink>,
    of: &SandboxId,
    exec_id: &ExecId,
    seen: u64,
) -> Result<bool, Fault> {
    let (sandbox_id, exec_id) = (of.clone(), exec_id.clone());
    let order = AttachOrder { sandbox_id, exec_id, offset: seen, follow: false, hold: false };
    let mut events = link.attach(order).await?;
    Ok(match events.next().await.transpose()? {
        Some(ExecEvent::Output { .. } | ExecEvent::Gap { .. }) => true,
        Some(ExecEvent::Paused | ExecEvent::Exit(_)) | None => false,
    })
}

/// All output that the sandbox still holds of a command.
async fn fetch(
    link: &Arc<dyn WorkerLink>,
    of: &SandboxId,
    exec_id: &ExecId,
) -> Result<ExecOutput, Fault> {
    let (sandbox_id, exec_id) = (of.clone(), exec_id.clone());
    let order = AttachOrder { sandbox_id, exec_id, offset: 0, follow: false, hold: false };
    let mut events = link.attach(order).await?;
    let mut output = ExecOutput::default();
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Output { stream, data } => {
                if output.bytes.len() + data.len() > OUTPUT {
                    break;
                }
                output.push(stream == OutputStream::Stderr, &data);
            }
            // Only what comes last is kept.
            ExecEvent::Gap { lost } => {
                let first = output.total().saturating_add(lost);
                output = ExecOutput { first, ..ExecOutput::default() };
            }
            ExecEvent::Paused | ExecEvent::Exit(_) => break,
        }
    }
    Ok(output)
}
