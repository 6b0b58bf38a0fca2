//! One worker's inventory against the store's rows of that worker.
//!
//! Rows are read before the inventory, and every change is conditional on what was read: what moves
//! meanwhile is left alone and seen next time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use protocol::worker::{SandboxFact, WorkerLink};
use store::Change;
use types::{EndedReason, Fault, Sandbox, SandboxId, SandboxState, WorkerId};

use crate::control::Inner;
use crate::fault::{chain, store_fault, within};
use crate::sandboxes::{begin, left_unanswered, settled, sweep};

/// Adoption may take a while after a crash with thousands of sandboxes.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(120);
const ASK_DEADLINE: Duration = Duration::from_secs(30);
/// What an unfinished row may hold up the comparison; its ending goes on alone.
const ENDING_WAIT: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 32;
/// Clocks of two processes are read at two moments.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The states in which a sandbox should be there.
const LIVE: [SandboxState; 4] =
    [SandboxState::Running, SandboxState::Unhealthy, SandboxState::Expired, SandboxState::Error];

pub(crate) async fn compare(
    inner: &Arc<Inner>,
    worker: &WorkerId,
    link: &Arc<dyn WorkerLink>,
) -> Result<(), Fault> {
    let seat_moves = inner.workers.seat_moves();
    let rows = inner.store.sandboxes_of_worker(worker.clone()).await.map_err(store_fault)?;
    let facts = within(INVENTORY_DEADLINE, "the inventory", link.inventory()).await?;
    inner.workers.recount(worker, rows.len() as u64, seat_moves);
    let known: HashSet<SandboxId> = rows.iter().map(|r| r.id.clone()).collect();
    let facts: HashMap<SandboxId, SandboxFact> =
        facts.into_iter().map(|f| (f.sandbox_id.clone(), f)).collect();
    stream::iter(rows)
        .for_each_concurrent(AT_ONCE, |row| {
            let fact = facts.get(&row.id).cloned();
            async move {
                let id = row.id.clone();
                // One odd row is said and passed over.
                if let Err(fault) = row_against_fact(inner, link, row, fact).await {
                    tracing::warn!(sandbox = %id, error = chain(&fault), "cannot be compared");
                }
            }
        })
        .await;
    stream::iter(facts.values().filter(|f| !known.contains(&f.sandbox_id)))
        .for_each_concurrent(AT_ONCE, |fact| async move {
            if let Err(fault) = fact_without_row(inner, worker, fact).await {
                tracing::warn!(sandbox = %fact.sandbox_id, error = chain(&fault), "cannot be compared");
            }
        })
        .await;
    inner.links.mark_adopted(worker);
    Ok(())
}

async fn row_against_fact(
    inner: &Arc<Inner>,
    link: &Arc<dyn WorkerLink>,
    row: Sandbox,
    fact: Option<SandboxFact>,
) -> Result<(), Fault> {
    if inner.spawning.contains(&row.id) {
        return Ok(());
    }
    if !LIVE.contains(&row.state) || !row.answered {
        if row.keyed
            && row.state == SandboxState::Creating
            && left_unanswered(inner, link, &row).await?
        {
            return Ok(());
        }
        return unfinished(inner, row).await;
    }
    // What the inventory lacks may have come or gone since: ask once more before it is given up.
    let fact = match fact {
        Some(fact) => Some(fact),
        None => within(ASK_DEADLINE, "the status", link.status(row.id.clone())).await?,
    };
    match fact {
        None => end(inner, &row, EndedReason::Lost).await,
        // Of another life of this sandbox: nothing it says is about this one.
        Some(fact) if fact.generation != row.generation => Ok(()),
        Some(fact) => match fact.state {
            SandboxState::Destroyed => {
                end(inner, &row, fact.reason.unwrap_or(EndedReason::Lost)).await
            }
            SandboxState::Error => died(inner, &row, fact.reason).await,
            SandboxState::Destroying => Ok(()),
            SandboxState::Creating
            | SandboxState::Running
            | SandboxState::Unhealthy
            | SandboxState::Expired => lives(inner, link, &row, &fact).await,
        },
    }
}

/// A spawn that nobody waits for, or a destroy that was cut short.
async fn unfinished(inner: &Arc<Inner>, row: Sandbox) -> Result<(), Fault> {
    if inner.endings.is_busy(&row.id, inner.clock.boot()) {
        return Ok(());
    }
    // Its spawn may have been answered since the rows were read, and its mark be gone with that.
    // None of this process can begin now, so what is read again is final.
    let now = inner.store.sandbox(row.id.clone()).await.map_err(store_fault)?;
    let Some(row) = now.filter(|s| !LIVE.contains(&s.state) || !s.answered) else { return Ok(()) };
    if row.state == SandboxState::Destroyed {
        return Ok(());
    }
    let reason = row.ended_reason.unwrap_or(EndedReason::Unanswered);
    let ending = begin(inner, row.id, reason, None);
    // Not done by then: it goes on, and `drive` after it.
    drop(tokio::time::timeout(ENDING_WAIT, settled(ending)).await);
    Ok(())
}

async fn end(inner: &Inner, row: &Sandbox, reason: EndedReason) -> Result<(), Fault> {
    let gone = inner.end(&row.id, row.generation, reason, LIVE.to_vec()).await;
    if gone.map_err(store_fault)?.is_some() {
        tracing::info!(sandbox = %row.id, reason = reason.as_str(), "sandbox is gone");
    }
    Ok(())
}

async fn died(inner: &Inner, row: &Sandbox, reason: Option<EndedReason>) -> Result<(), Fault> {
    let change = Change {
        state: Some(SandboxState::Error),
        only_from: vec![SandboxState::Running, SandboxState::Unhealthy, SandboxState::Expired],
        ended_reason: Some(reason.unwrap_or(EndedReason::Crashed)),
        generation: Some(row.generation),
        ..Change::default()
    };
    inner.store.change_sandbox(row.id.clone(), change).await.map_err(store_fault)?;
    Ok(())
}

async fn lives(
    inner: &Inner,
    link: &Arc<dyn WorkerLink>,
    row: &Sandbox,
    fact: &SandboxFact,
) -> Result<(), Fault> {
    if row.state == SandboxState::Unhealthy {
        let change = Change {
            state: Some(SandboxState::Running),
            only_from: vec![SandboxState::Unhealthy],
            generation: Some(row.generation),
            ..Change::default()
        };
        inner.store.change_sandbox(row.id.clone(), change).await.map_err(store_fault)?;
    }
    // The record never promises more than the worker holds.
    if fact.expires_at.saturating_add(TOLERANCE) < row.expires_at {
        let work = link.extend(row.id.clone(), inner.lease(row), row.expires_at);
        within(ASK_DEADLINE, "the extend", work).await?;
    }
    Ok(())
}

/// The worker holds what no living row stands for.
async fn fact_without_row(
    inner: &Inner,
    worker: &WorkerId,
    fact: &SandboxFact,
) -> Result<(), Fault> {
    let id = &fact.sandbox_id;
    if fact.state == SandboxState::Destroyed || inner.spawning.contains(id) {
        return Ok(());
    }
    // Rows were read first: a new sandbox has its row by now, since that is written before it is
    // made.
    let row = inner.store.sandbox(id.clone()).await.map_err(store_fault)?;
    let reason = match row {
        Some(row) if row.state != SandboxState::Destroyed => return Ok(()),
        Some(row) => row.ended_reason.unwrap_or(EndedReason::Destroyed),
        None => EndedReason::Lost,
    };
    tracing::info!(sandbox = %id, "worker holds a sandbox that is no more; it is removed");
    sweep(inner, worker, id, fact.generation, reason).await;
    Ok(())
}
