//! How a sandbox ends, whoever wants it: the intent is stored, the worker destroys, the record is
//! closed. One ending at a time for each sandbox; those who want the same join it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::worker::LeaseToken;
use store::Change;
use tokio::sync::watch;
use types::clock::BootTime;
use types::failpoint::hit;
use types::{EndedReason, ErrorCode, Fault, SandboxId, SandboxState, WorkerId};

use super::watching::last_words;
use crate::control::Inner;
use crate::fault::{chain, store_fault, within};

/// A worker that takes longer is asked again.
const DESTROY_DEADLINE: Duration = Duration::from_secs(60);
/// Tries in one ending, before it rests.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between endings that failed: first, and at most.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How far an ending is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Begun,
    /// The intent is stored: it will happen, whatever else does.
    Intended,
    Done,
    /// This try is over without success; `drive` goes on.
    Later,
    /// The store would not take the intent: nothing has happened.
    Refused((ErrorCode, String)),
}

/// Endings that run, and those that rest until they are tried again. Holds an entry for each
/// sandbox in `Destroying` at most.
#[derive(Default)]
pub(crate) struct Endings(Mutex<HashMap<SandboxId, Entry>>);

enum Entry {
    Running { progress: watch::Receiver<Progress>, fails: u32 },
    Resting { fails: u32, until: BootTime },
}

impl Endings {
    /// Whether `drive` has to leave this one alone for now.
    pub fn is_busy(&self, id: &SandboxId, now: BootTime) -> bool {
        match self.entries().get(id) {
            None => false,
            Some(Entry::Running { progress, .. }) => progress.has_changed().is_ok(),
            Some(Entry::Resting { until, .. }) => now < *until,
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SandboxId, Entry>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Begins to end a sandbox, or joins the ending that runs.
pub(crate) fn begin(
    inner: &Arc<Inner>,
    id: SandboxId,
    reason: EndedReason,
    grace: Option<Duration>,
) -> watch::Receiver<Progress> {
    let (tx, rx) = watch::channel(Progress::Begun);
    {
        let mut entries = inner.endings.entries();
        let fails = match entries.get(&id) {
            // A closed channel: that ending died half way.
            Some(Entry::Running { progress, .. }) if progress.has_changed().is_ok() => {
                return progress.clone();
            }
            Some(Entry::Running { fails, .. } | Entry::Resting { fails, .. }) => *fails,
            None => 0,
        };
        entries.insert(id.clone(), Entry::Running { progress: rx.clone(), fails });
    }
    inner.tracker.spawn(run(inner.clone(), id, reason, grace, tx));
    rx
}

/// The first progress after which this ending does nothing more.
pub(crate) async fn settled(mut ending: watch::Receiver<Progress>) -> Progress {
    let over = |p: &Progress| match p {
        Progress::Begun | Progress::Intended => false,
        Progress::Done | Progress::Later | Progress::Refused(_) => true,
    };
    match ending.wait_for(over).await {
        Ok(progress) => progress.clone(),
        Err(_) => Progress::Later,
    }
}

async fn run(
    inner: Arc<Inner>,
    id: SandboxId,
    reason: EndedReason,
    grace: Option<Duration>,
    tx: watch::Sender<Progress>,
) {
    let mut last = Progress::Later;
    for tried in 0..TRIES {
        match attempt(&inner, &id, reason, grace, &tx).await {
            Ok(()) => last = Progress::Done,
            Err(Failed::Intent(fault)) if tried == 0 => {
                tracing::warn!(sandbox = %id, error = chain(&fault), "destroy is not stored");
                last = Progress::Refused((fault.code, fault.message));
            }
            Err(Failed::Intent(fault) | Failed::Work(fault)) => {
                tracing::warn!(sandbox = %id, error = chain(&fault), "destroy is not done yet");
                if tried + 1 < TRIES && pause(&inner, tried).await {
                    continue;
                }
            }
        }
        break;
    }
    settle(&inner, &id, &last);
    tx.send_replace(last);
}

enum Failed {
    Intent(Fault),
    Work(Fault),
}

async fn attempt(
    inner: &Inner,
    id: &SandboxId,
    reason: EndedReason,
    grace: Option<Duration>,
    tx: &watch::Sender<Progress>,
) -> Result<(), Failed> {
    let intent = Change {
        state: Some(SandboxState::Destroying),
        ended_reason: Some(reason),
        ..Change::default()
    };
    let stored = inner.store.change_sandbox(id.clone(), intent).await;
    let Some(sandbox) = stored.map_err(|e| Failed::Intent(store_fault(e)))? else {
        // Never was, or is gone: nothing moves out of `Destroyed`.
        return Ok(());
    };
    tx.send_replace(Progress::Intended);
    hit("control.intended");
    let link = inner.links.get(&sandbox.worker_id);
    let link = link.ok_or_else(|| Failed::Work(Fault::unavailable("its worker is away")))?;
    // The reason that was stored first is the one that holds.
    let reason = sandbox.ended_reason.unwrap_or(reason);
    last_words(inner, &link, id).await;
    let work = link.destroy(id.clone(), inner.lease(&sandbox), reason, grace);
    let deadline = DESTROY_DEADLINE.saturating_add(grace.unwrap_or_default());
    within(deadline, "the destroy", work).await.map_err(Failed::Work)?;
    hit("control.destroyed");
    let closed = inner.end(id, sandbox.generation, reason, Vec::new()).await;
    closed.map_err(|e| Failed::Work(store_fault(e)))?;
    hit("control.closed");
    Ok(())
}

/// Waits before the next try; `false` when the process is stopping.
async fn pause(inner: &Inner, tried: u32) -> bool {
    let pause = tokio::time::sleep(FIRST_PAUSE * 2_u32.saturating_pow(tried));
    tokio::select! {
        () = inner.stopping.cancelled() => false,
        () = pause => true,
    }
}

fn settle(inner: &Inner, id: &SandboxId, last: &Progress) {
    let mut entries = inner.endings.entries();
    let fails = match entries.remove(id) {
        Some(Entry::Running { fails, .. } | Entry::Resting { fails, .. }) => fails,
        None => 0,
    };
    match last {
        Progress::Done | Progress::Refused(_) => {}
        Progress::Begun | Progress::Intended | Progress::Later => {
            let fails = fails.saturating_add(1);
            let until = inner.clock.boot().saturating_add(rest(fails));
            entries.insert(id.clone(), Entry::Resting { fails, until });
        }
    }
}

/// Doubles with each failure; spread by a quarter, so that a worker that returns is not met by all
/// at once.
fn rest(fails: u32) -> Duration {
    let doubled = FIRST_REST.saturating_mul(2_u32.saturating_pow(fails.saturating_sub(1).min(16)));
    let mut byte = [0_u8];
    let spread = getrandom::fill(&mut byte).map_or(0.0, |()| f64::from(byte[0]) / 1024.0);
    doubled.min(LONGEST_REST).mul_f64(1.0 + spread)
}

/// Removes from a worker what no living record stands for. What fails, `reconcile` finds again.
pub(crate) async fn sweep(
    inner: &Inner,
    worker: &WorkerId,
    id: &SandboxId,
    generation: u64,
    reason: EndedReason,
) {
    let Some(link) = inner.links.get(worker) else { return };
    let lease = LeaseToken {
        resource_id: id.clone(),
        holder_id: worker.clone(),
        generation,
        expires_at: inner.clock.wall().saturating_add(DESTROY_DEADLINE),
    };
    let work = link.destroy(id.clone(), lease, reason, None);
    if let Err(fault) = within(DESTROY_DEADLINE, "the destroy", work).await {
        tracing::warn!(sandbox = %id, error = chain(&fault), "an unknown sandbox is not removed");
    }
}
