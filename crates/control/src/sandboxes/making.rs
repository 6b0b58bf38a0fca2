//! The making of one sandbox, from its record to its answer. Outlives the caller who asked.
//!
//! ```text
//! insert (Creating, unanswered) ─> worker makes it ─> Running + answered ─> caller has it
//!        │ full, duplicate            │ fails              │ caller is gone
//!        v                            v                    v
//!      refused                  SpawnFailed            Unanswered: destroyed
//! ```
//!
//! One that waits in a warm pool takes a shorter way ([`super::warm`]).

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::SpawnOrder;
use store::{Change, Earlier, InsertOutcome, Limits, SpawnKey};
use tokio::sync::oneshot;
use types::failpoint::hit;
use types::{EndedReason, Fault, Sandbox, SandboxId, SandboxState};

use super::ending::{Progress, begin, settled, sweep};
use super::flights::Mark;
use super::repeat::key_reused;
use super::warm::{self, Taken};
use crate::admission::{Wish, full, owner_full};
use crate::control::Inner;
use crate::fault::{ended, store_fault, within};
use crate::workers::Seat;

/// A spawn may have to pull its image first.
const SPAWN_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// How long a failed spawn waits for its own clean-up before it answers; that goes on regardless.
const UNDO_WAIT: Duration = Duration::from_secs(5);
/// With 100 random bits a second collision in a row means that the random source is broken.
const ID_ATTEMPTS: u32 = 8;

type Answer = Result<Made, Fault>;

/// What a caller gets.
pub(crate) enum Made {
    New(Box<Unclaimed>),
    /// Nothing was made: a spawn before this one is the answer.
    Earlier(Box<Earlier>),
}

/// A sandbox on its way to the caller. Dropped on that way, it is destroyed, unless others wait for
/// it or its key can still fetch it.
pub(crate) struct Unclaimed {
    inner: Arc<Inner>,
    sandbox: Option<(Sandbox, Mark)>,
}

impl Unclaimed {
    pub fn claim(mut self) -> Sandbox {
        let (sandbox, _) = self.sandbox.take().expect("claimed once, since claiming consumes it");
        sandbox
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Without a runtime this process is ending; its ttl then ends the sandbox.
        if let Some((sandbox, mark)) = self.sandbox.take()
            && !sandbox.keyed
            && tokio::runtime::Handle::try_current().is_ok()
        {
            mark.unless_joined(|| {
                drop(begin(&self.inner, sandbox.id, EndedReason::Unanswered, None));
            });
        }
    }
}

/// Makes a sandbox and answers.
pub(super) async fn make(
    inner: Arc<Inner>,
    wish: Wish,
    seat: Seat,
    answer: oneshot::Sender<Answer>,
) {
    let made = attempt(&inner, wish, seat, &answer).await;
    // A caller that is gone drops what it was sent, and with it the sandbox.
    drop(answer.send(made));
}

async fn attempt(
    inner: &Arc<Inner>,
    wish: Wish,
    seat: Seat,
    answer: &oneshot::Sender<Answer>,
) -> Answer {
    let (limits, key) = (wish.limits(inner), wish.key.clone());
    let mut record = record(inner, wish, &seat)?;
    let taken = warm::take(inner, &mut record).await;
    if taken.is_some() && answer.is_closed() && !record.keyed {
        return Err(ended(&record));
    }
    let (record, mark) = match insert(inner, record, limits, key, seat, taken).await? {
        Ok(inserted) => inserted,
        Err(earlier) => return Ok(Made::Earlier(earlier)),
    };
    let made = if record.state == SandboxState::Creating {
        fly(inner, record, &mark, answer).await
    } else {
        // It was taken from a pool, and is all there.
        Ok(record)
    };
    mark.tell(&made);
    let sandbox = Some((made?, mark));
    Ok(Made::New(Box::new(Unclaimed { inner: inner.clone(), sandbox })))
}

/// From the record to the running sandbox.
async fn fly(
    inner: &Arc<Inner>,
    record: Sandbox,
    mark: &Mark,
    answer: &oneshot::Sender<Answer>,
) -> Result<Sandbox, Fault> {
    let abandoned = || answer.is_closed() && !record.keyed && !mark.is_joined();
    hit("control.inserted");
    if abandoned() {
        return Err(give_up(inner, record).await);
    }
    let spawned = match spawn_on_worker(inner, &record).await {
        Ok(spawned) => spawned,
        Err(fault) => {
            undo(inner, &record, EndedReason::SpawnFailed).await;
            return Err(fault);
        }
    };
    hit("control.spawned");
    if abandoned() {
        return Err(give_up(inner, record).await);
    }
    let change = Change {
        state: Some(SandboxState::Running),
        only_from: vec![SandboxState::Creating],
        vm_id: spawned.runtime_id,
        answered: Some(true),
        generation: Some(record.generation),
        ..Change::default()
    };
    match inner.store.change_sandbox(record.id.clone(), change).await {
        Ok(Some(sandbox)) => {
            hit("control.answered");
            Ok(sandbox)
        }
        Ok(None) => Err(overtaken(inner, record).await),
        Err(error) => {
            undo(inner, &record, EndedReason::SpawnFailed).await;
            Err(store_fault(error))
        }
    }
}

/// What is to be made.
fn record(inner: &Inner, wish: Wish, seat: &Seat) -> Result<Sandbox, Fault> {
    let now = inner.clock.wall();
    let preview_domain = seat.preview_domain.clone();
    Ok(Sandbox {
        id: new_id()?,
        state: SandboxState::Creating,
        provider: wish.provider,
        image: wish.image,
        size: wish.size,
        owner_id: wish.owner,
        tenant_id: wish.tenant,
        name: wish.name,
        vm_id: None,
        worker_id: seat.worker_id.clone(),
        generation: 1,
        created_at: now,
        expires_at: now.saturating_add(wish.ttl),
        metadata: wish.metadata,
        preview_domain: preview_domain.or_else(|| inner.config.preview_domain.clone()),
        ended_reason: None,
        answered: false,
        keyed: wish.key.is_some(),
    })
}

/// Adds the record, within the limits, under an id that nobody had. `Err` within: an earlier spawn
/// is the answer.
async fn insert(
    inner: &Arc<Inner>,
    mut record: Sandbox,
    limits: Limits,
    key: Option<SpawnKey>,
    seat: Seat,
    mut taken: Option<Taken>,
) -> Result<Result<(Sandbox, Mark), Box<Earlier>>, Fault> {
    for _ in 0..ID_ATTEMPTS {
        // Marked before it can be seen in the store.
        let mark = inner.spawning.mark(&record.id);
        let inserted = inner.store.insert_sandbox(record.clone(), limits, key.clone()).await;
        let outcome = match inserted {
            Ok(outcome) => outcome,
            Err(error) => {
                if let Some(taken) = taken {
                    // It may be stored, whatever was answered, and then as one that runs.
                    taken.discard(&record).await;
                    undo(inner, &record, EndedReason::SpawnFailed).await;
                }
                return Err(store_fault(error));
            }
        };
        match outcome {
            InsertOutcome::Inserted => {
                seat.keep();
                if let Some(taken) = taken {
                    taken.keep();
                    hit("control.answered");
                }
                return Ok(Ok((record, mark)));
            }
            InsertOutcome::Duplicate => {
                if let Some(taken) = taken.take() {
                    taken.discard(&record).await;
                    (record.state, record.answered) = (SandboxState::Creating, false);
                }
                record.id = new_id()?;
            }
            InsertOutcome::Full(counts) => return Err(full(limits.max_sandboxes, counts)),
            InsertOutcome::OwnerFull(counts) => {
                return Err(owner_full(limits.max_per_owner, counts));
            }
            InsertOutcome::Earlier(earlier) => return Ok(Err(earlier)),
            InsertOutcome::KeyReused => return Err(key_reused()),
        }
    }
    Err(Fault::internal("no free sandbox id was found"))
}

fn new_id() -> Result<SandboxId, Fault> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|e| Fault::internal("making a sandbox id failed").caused_by(e))?;
    Ok(SandboxId::from_random(bytes))
}

async fn spawn_on_worker(
    inner: &Inner,
    record: &Sandbox,
) -> Result<protocol::worker::Spawned, Fault> {
    let link = inner.links.get(&record.worker_id);
    let link = link.ok_or_else(|| Fault::unavailable("the worker cannot be reached; retry"))?;
    let order = SpawnOrder {
        sandbox_id: record.id.clone(),
        lease: inner.lease(record),
        provider: record.provider.clone(),
        image: record.image.clone(),
        size: record.size,
        owner_id: record.owner_id.as_ref().map(|o| o.as_str().to_owned()),
        expires_at: record.expires_at,
        metadata: record.metadata.clone(),
    };
    within(SPAWN_DEADLINE, "the spawn", link.spawn(order)).await
}

/// Nobody waits for it any more.
async fn give_up(inner: &Arc<Inner>, record: Sandbox) -> Fault {
    undo(inner, &record, EndedReason::Unanswered).await;
    ended(&record)
}

/// Somebody destroyed it while it was being made, or it died at once: it may have come to life
/// after that destroy, so it is removed once more.
async fn overtaken(inner: &Arc<Inner>, record: Sandbox) -> Fault {
    undo(inner, &record, EndedReason::SpawnFailed).await;
    sweep(inner, &record.worker_id, &record.id, record.generation, EndedReason::Destroyed).await;
    match inner.store.sandbox(record.id.clone()).await {
        Ok(now) => ended(&now.unwrap_or(record)),
        Err(error) => store_fault(error),
    }
}

/// Ends what must not stay, and waits a little for it. What fails here, `drive` takes up.
async fn undo(inner: &Arc<Inner>, record: &Sandbox, reason: EndedReason) {
    let ending = begin(inner, record.id.clone(), reason, None);
    let progress = tokio::time::timeout(UNDO_WAIT, settled(ending)).await;
    if let Ok(Progress::Refused(_)) = progress {
        // The store would not take the intent; the record still says `Creating`, unanswered. The
        // sandbox need not wait for the store to recover.
        sweep(inner, &record.worker_id, &record.id, record.generation, reason).await;
    }
    inner.background.wake_drive();
}
