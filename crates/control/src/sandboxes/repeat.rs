//! Spawns that an earlier one answers: by an `Idempotency-Key`, or by a name.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::WorkerLink;
use store::{Change, Earlier, InsertOutcome};
use types::{ErrorCode, Fault, Sandbox, SandboxId, SandboxState};

use super::SpawnInput;
use crate::admission::Wish;
use crate::control::Inner;
use crate::fault::{store_fault, within};
use crate::{Context, Control};

/// How long a key is remembered.
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Times that a spawn looks again, since the one that it waited for came to nothing.
const TRIES: u32 = 8;
/// How long one waits for a spawn that an earlier life of this server began. The comparison with
/// its worker decides about it, within moments of the start.
const ADOPTION: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ASK_DEADLINE: Duration = Duration::from_secs(30);

/// The answer to a spawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained {
    pub sandbox: Sandbox,
    /// A living one that has the name that was asked for; else it was made for this request, now
    /// or when its key was first used.
    pub found: bool,
}

impl Control {
    /// Makes a sandbox, or finds the one that an earlier request of the same key or name made.
    pub async fn obtain(&self, ctx: &Context, input: SpawnInput) -> Result<Obtained, Fault> {
        let inner = &self.0;
        if inner.stopping.is_cancelled() {
            return Err(Fault::unavailable("the server is shutting down"));
        }
        let wish = Wish::resolve(inner, ctx, input)?;
        for _ in 0..TRIES {
            let known = if wish.key.is_none() && wish.name.is_none() {
                None
            } else {
                let earlier = inner.store.earlier_spawn(wish.key.clone(), wish.name_of()).await;
                earlier.map_err(store_fault)?
            };
            let before = match known {
                Some(InsertOutcome::KeyReused) => return Err(key_reused()),
                Some(InsertOutcome::Earlier(earlier)) if !earlier.found || wish.key.is_none() => {
                    earlier
                }
                // A name that a new key finds is stored with that key, by the insert.
                _ => match self.spawn_once(wish.clone()).await? {
                    Ok(sandbox) => return Ok(Obtained { sandbox, found: false }),
                    Err(earlier) => earlier,
                },
            };
            if let Some(obtained) = settled(inner, *before, wish.key.is_some()).await? {
                return Ok(obtained);
            }
        }
        Err(Fault::unavailable("other spawns of that name came and went; retry"))
    }
}

/// Waits until an earlier spawn is done. `None`: it came to nothing; look again.
async fn settled(inner: &Inner, earlier: Earlier, keyed: bool) -> Result<Option<Obtained>, Fault> {
    let Earlier { sandbox, found } = earlier;
    let id = sandbox.id.clone();
    if sandbox.state != SandboxState::Creating {
        // A name may find one whose caller has just left, and that ends with it.
        if found && inner.spawning.join(&id).await.is_none() && inner.endings.has(&id) {
            tokio::time::sleep(LOOK_AGAIN).await;
            return Ok(None);
        }
        return Ok(Some(Obtained { sandbox: inner.shown(sandbox), found }));
    }
    match inner.spawning.join(&id).await {
        // Whoever repeats a request gets its answer, also where that is a fault.
        Some(Err(fault)) if !found => return Err(fault),
        Some(_) => {}
        None => left_behind(inner, &id).await?,
    }
    again(inner, &id, found, keyed).await
}

/// The record as it is once its spawn is over.
async fn again(
    inner: &Inner,
    id: &SandboxId,
    found: bool,
    keyed: bool,
) -> Result<Option<Obtained>, Fault> {
    let Some(sandbox) = inner.store.sandbox(id.clone()).await.map_err(store_fault)? else {
        return Ok(None);
    };
    let usable = match sandbox.state {
        SandboxState::Creating => return Ok(None),
        SandboxState::Running | SandboxState::Unhealthy => true,
        // Its own key answers with it all the same, unless it never was.
        SandboxState::Expired
        | SandboxState::Error
        | SandboxState::Destroying
        | SandboxState::Destroyed => keyed && !found && sandbox.answered,
    };
    Ok(usable.then(|| Obtained { sandbox: inner.shown(sandbox), found }))
}

/// A spawn that nobody in this process makes: what becomes of it, the comparison decides.
async fn left_behind(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    let until = inner.clock.boot().saturating_add(ADOPTION);
    loop {
        let row = inner.store.sandbox(id.clone()).await.map_err(store_fault)?;
        if row.is_none_or(|s| s.state != SandboxState::Creating) {
            return Ok(());
        }
        if inner.clock.boot() >= until {
            let text = format!("sandbox {id} is still being created; retry");
            return Err(Fault::unavailable(text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A spawn with a key that a crash cut short: what its worker holds is what the key then fetches.
/// `true`: it is settled; else it came to nothing.
pub(crate) async fn left_unanswered(
    inner: &Inner,
    link: &Arc<dyn WorkerLink>,
    row: &Sandbox,
) -> Result<bool, Fault> {
    let fact = within(ASK_DEADLINE, "the status", link.status(row.id.clone())).await?;
    let lives =
        fact.is_some_and(|f| f.state == SandboxState::Running && f.generation == row.generation);
    if !lives {
        return Ok(false);
    }
    let change = Change {
        state: Some(SandboxState::Running),
        only_from: vec![SandboxState::Creating],
        answered: Some(true),
        generation: Some(row.generation),
        ..Change::default()
    };
    inner.store.change_sandbox(row.id.clone(), change).await.map_err(store_fault)?;
    Ok(true)
}

pub(super) fn key_reused() -> Fault {
    let text = "the Idempotency-Key was used with another request";
    Fault::new(ErrorCode::Unprocessable, text)
}
