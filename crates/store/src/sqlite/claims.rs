//! What a repeat of a spawn finds: names and keys. Looked at and taken in the transaction that
//! inserts.

use rusqlite::{Connection, OptionalExtension, Result, params};
use types::{EndedReason, OwnerId, Sandbox, SandboxId, SandboxState, TenantId, Timestamp};

use super::rows::{self, nanos};
use super::{sandboxes, statements};
use crate::{Earlier, InsertOutcome, NameOf, SpawnKey};

/// Whether one in this state may hold its name.
pub(super) fn may_hold(state: SandboxState) -> bool {
    !matches!(state, SandboxState::Destroying | SandboxState::Destroyed)
}

/// The spawn before, if there was one. Changes nothing.
pub(super) fn find(
    db: &Connection,
    key: Option<&SpawnKey>,
    name: Option<&NameOf>,
    now: Timestamp,
) -> Result<Option<InsertOutcome>> {
    if let Some(key) = key
        && let Some(known) = by_key(db, key)?
    {
        return Ok(Some(known));
    }
    let Some(name) = name else { return Ok(None) };
    let holder = holder(db, name)?.filter(|s| lives(s, now));
    Ok(holder.map(|sandbox| InsertOutcome::Earlier(Box::new(Earlier { sandbox, found: true }))))
}

/// As [`find`] for one that is to be inserted. Afterwards its name and its key are free, or the
/// answer is remembered for its key.
pub(super) fn settle(
    db: &Connection,
    sandbox: &Sandbox,
    key: Option<&SpawnKey>,
    now: Timestamp,
) -> Result<Option<InsertOutcome>> {
    let name = NameOf::of(sandbox);
    let before = find(db, key, name.as_ref(), now)?;
    if let Some(InsertOutcome::Earlier(earlier)) = &before {
        if let Some(key) = key
            && earlier.found
            && by_key(db, key)?.is_none()
        {
            forget(db, &key.key)?;
            put(db, key, &earlier.sandbox.id, true, now)?;
            count(db, &earlier.sandbox.id, 1)?;
        }
        return Ok(before);
    }
    if before.is_some() {
        return Ok(before);
    }
    if let Some(key) = key {
        forget(db, &key.key)?;
    }
    if let Some(name) = &name
        && let Some(dead) = holder(db, name)?
    {
        db.prepare_cached(statements::RELEASE_NAME)?.execute([dead.id.as_str()])?;
    }
    Ok(None)
}

/// Remembers a key; the record's own count is the caller's to keep.
pub(super) fn put(
    db: &Connection,
    key: &SpawnKey,
    id: &SandboxId,
    found: bool,
    now: Timestamp,
) -> Result<()> {
    let values = params![key.key, key.request, id.as_str(), found, nanos(now)];
    db.prepare_cached(statements::PUT_KEY)?.execute(values).map(|_| ())
}

/// Forgets keys of before `before`, at most `limit` of them.
pub(super) fn purge(db: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let old: Vec<String> = db
        .prepare_cached(statements::OLD_KEYS)?
        .query_map(params![nanos(before), limit], |row| row.get(0))?
        .collect::<Result<_>>()?;
    for key in &old {
        forget(db, key)?;
    }
    Ok(old.len() as u64)
}

fn forget(db: &Connection, key: &str) -> Result<()> {
    let mut statement = db.prepare_cached(statements::DELETE_KEY)?;
    let sandbox: Option<String> = statement.query_row([key], |row| row.get(0)).optional()?;
    match sandbox {
        Some(id) => db.prepare_cached(statements::COUNT_KEY)?.execute(params![id, -1]).map(|_| ()),
        None => Ok(()),
    }
}

fn count(db: &Connection, id: &SandboxId, by: i64) -> Result<()> {
    db.prepare_cached(statements::COUNT_KEY)?.execute(params![id.as_str(), by]).map(|_| ())
}

/// What a key stands for; nothing where it is old, or its spawn came to nothing.
fn by_key(db: &Connection, key: &SpawnKey) -> Result<Option<InsertOutcome>> {
    let mut statement = db.prepare_cached(statements::GET_KEY)?;
    let known = statement.query_row([&key.key], |row| {
        let id = rows::word(row, 1, SandboxId::parse)?;
        Ok((row.get::<_, String>(0)?, id, row.get::<_, bool>(2)?, rows::time(row, 3)?))
    });
    let Some((request, id, found, created_at)) = known.optional()? else { return Ok(None) };
    if created_at < key.since {
        return Ok(None);
    }
    let Some(sandbox) = sandboxes::get(db, &id)? else { return Ok(None) };
    if came_to_nothing(&sandbox) {
        return Ok(None);
    }
    Ok(Some(if request == key.request {
        InsertOutcome::Earlier(Box::new(Earlier { sandbox, found }))
    } else {
        InsertOutcome::KeyReused
    }))
}

/// Its spawn failed, and said so: a repeat is a new try.
fn came_to_nothing(sandbox: &Sandbox) -> bool {
    matches!(sandbox.ended_reason, Some(EndedReason::SpawnFailed | EndedReason::Unanswered))
}

fn holder(db: &Connection, name: &NameOf) -> Result<Option<Sandbox>> {
    let values = params![
        name.name.as_str(),
        name.owner.as_ref().map(OwnerId::as_str),
        name.tenant.as_ref().map(TenantId::as_str),
    ];
    db.prepare_cached(statements::HOLDER_OF_NAME)?.query_row(values, rows::sandbox).optional()
}

/// Whether it can still be used, as far as its record says.
fn lives(sandbox: &Sandbox, now: Timestamp) -> bool {
    match sandbox.state {
        SandboxState::Creating => true,
        SandboxState::Running | SandboxState::Unhealthy => now < sandbox.expires_at,
        SandboxState::Expired
        | SandboxState::Error
        | SandboxState::Destroying
        | SandboxState::Destroyed => false,
    }
}
