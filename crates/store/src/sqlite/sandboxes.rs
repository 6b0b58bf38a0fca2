//! What is asked of the sandboxes, as closures for the database threads.

use rusqlite::{Connection, OptionalExtension, Params, Result, params};
use types::{OwnerId, Sandbox, SandboxId, SandboxState, Timestamp, WorkerId};

use super::rows::{self, integer, nanos};
use super::{claims, labels, statements};
use crate::{Change, Counts, InsertOutcome, Limits, SpawnKey};

pub(super) fn insert(
    db: &Connection,
    sandbox: &Sandbox,
    limits: Limits,
    key: Option<&SpawnKey>,
    now: Timestamp,
) -> Result<InsertOutcome> {
    if let Some(before) = claims::settle(db, sandbox, key, now)? {
        return Ok(before);
    }
    if let Some(refusal) = over_limit(db, sandbox, limits)? {
        // Whoever asks again for an id that he has already got is told so, however full it is.
        let taken = get(db, &sandbox.id)?.is_some();
        return Ok(if taken { InsertOutcome::Duplicate } else { refusal });
    }
    let metadata = (!sandbox.metadata.is_empty()).then_some(&sandbox.metadata);
    let inserted = db.prepare_cached(statements::INSERT_SANDBOX)?.execute(params![
        sandbox.id.as_str(),
        sandbox.state.as_str(),
        sandbox.provider,
        sandbox.image,
        sandbox.size.memory_mb,
        sandbox.size.vcpus,
        sandbox.size.disk_size_mb,
        sandbox.owner_id.as_ref().map(OwnerId::as_str),
        sandbox.tenant_id.as_ref().map(|tenant| tenant.as_str()),
        sandbox.vm_id,
        sandbox.worker_id.as_str(),
        integer(sandbox.generation),
        nanos(sandbox.created_at),
        nanos(sandbox.expires_at),
        rows::json(metadata)?,
        sandbox.preview_domain,
        sandbox.ended_reason.map(|reason| reason.as_str()),
        sandbox.answered,
        sandbox.name.as_ref().map(|name| name.as_str()),
        i64::from(key.is_some()),
        sandbox.state.is_final().then(|| nanos(now)),
        !sandbox.state.is_final(),
        sandbox.state == SandboxState::Destroying,
        sandbox.name.is_some() && claims::may_hold(sandbox.state),
    ])?;
    if inserted == 0 {
        return Ok(InsertOutcome::Duplicate);
    }
    labels::add(db, sandbox)?;
    if let Some(key) = key {
        claims::put(db, key, &sandbox.id, false, now)?;
    }
    Ok(InsertOutcome::Inserted)
}

fn over_limit(db: &Connection, sandbox: &Sandbox, limits: Limits) -> Result<Option<InsertOutcome>> {
    if limits == Limits::default() || sandbox.state.is_final() {
        return Ok(None);
    }
    let counts = counts(db, sandbox.owner_id.as_ref())?;
    let reached = |limit: u64, count: u64| limit > 0 && count >= limit;
    if reached(limits.max_sandboxes, counts.total) {
        return Ok(Some(InsertOutcome::Full(counts)));
    }
    if sandbox.owner_id.is_some() && reached(limits.max_per_owner, counts.owner) {
        return Ok(Some(InsertOutcome::OwnerFull(counts)));
    }
    Ok(None)
}

pub(super) fn get(db: &Connection, id: &SandboxId) -> Result<Option<Sandbox>> {
    let mut statement = db.prepare_cached(statements::GET_SANDBOX)?;
    statement.query_row([id.as_str()], rows::sandbox).optional()
}

pub(super) fn change(
    db: &Connection,
    id: &SandboxId,
    change: &Change,
    now: Timestamp,
) -> Result<Option<Sandbox>> {
    let Some(before) = get(db, id)? else { return Ok(None) };
    let Some(after) = change.applied_to(&before) else { return Ok(None) };
    // Only what differs is written: most changes touch few of the indexes.
    if (&after.vm_id, after.ended_reason) != (&before.vm_id, before.ended_reason) {
        let reason = after.ended_reason.map(|reason| reason.as_str());
        db.prepare_cached(statements::UPDATE_DETAILS)?.execute(params![
            id.as_str(),
            after.vm_id,
            reason
        ])?;
    }
    if after.answered != before.answered {
        db.prepare_cached(statements::UPDATE_ANSWERED)?
            .execute(params![id.as_str(), after.answered])?;
    }
    if after.expires_at != before.expires_at {
        db.prepare_cached(statements::UPDATE_EXPIRY)?
            .execute(params![id.as_str(), nanos(after.expires_at)])?;
    }
    if after.state != before.state {
        move_to(db, id, after.state, now)?;
        if after.state.is_final() {
            labels::end(db, &before)?;
        }
    }
    Ok(Some(after))
}

/// The state machine lets nobody out of `Destroying` but to the end.
fn move_to(db: &Connection, id: &SandboxId, state: SandboxState, now: Timestamp) -> Result<()> {
    let (id, name) = (id.as_str(), state.as_str());
    match state {
        SandboxState::Creating
        | SandboxState::Running
        | SandboxState::Unhealthy
        | SandboxState::Expired
        | SandboxState::Error => db.prepare_cached(statements::UPDATE_STATE)?.execute([id, name]),
        SandboxState::Destroying => {
            db.prepare_cached(statements::UPDATE_ENDING)?.execute([id, name])
        }
        SandboxState::Destroyed => {
            db.prepare_cached(statements::UPDATE_ENDED)?.execute(params![id, name, nanos(now)])
        }
    }
    .map(|_| ())
}

pub(super) fn due(db: &Connection, now: Timestamp, limit: u32) -> Result<Vec<Sandbox>> {
    collect(db, statements::LIST_DUE, params![nanos(now), limit])
}

pub(super) fn unfinished(db: &Connection, before: Timestamp, limit: u32) -> Result<Vec<Sandbox>> {
    collect(db, statements::LIST_UNFINISHED, params![nanos(before), limit])
}

pub(super) fn of_worker(db: &Connection, worker: &WorkerId) -> Result<Vec<Sandbox>> {
    collect(db, statements::LIST_OF_WORKER, [worker.as_str()])
}

pub(super) fn counts(db: &Connection, owner: Option<&OwnerId>) -> Result<Counts> {
    let mut statement = db.prepare_cached(statements::COUNTS)?;
    statement.query_row([owner.map(OwnerId::as_str)], |row| {
        Ok(Counts { total: rows::natural(row, 0)?, owner: rows::natural(row, 1)? })
    })
}

pub(super) fn count_of_provider(db: &Connection, provider: &str) -> Result<u64> {
    let mut statement = db.prepare_cached(statements::COUNT_OF_PROVIDER)?;
    statement.query_row([provider], |row| rows::natural(row, 0))
}

pub(super) fn purge(db: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let mut statement = db.prepare_cached(statements::PURGE)?;
    let gone = statement.query_map(params![nanos(before), limit], rows::labelled)?;
    let gone = gone.collect::<Result<Vec<_>>>()?;
    for labelled in &gone {
        labels::forget(db, labelled)?;
    }
    Ok(gone.len() as u64)
}

fn collect(db: &Connection, sql: &str, values: impl Params) -> Result<Vec<Sandbox>> {
    db.prepare_cached(sql)?.query_map(values, rows::sandbox)?.collect()
}
