//! What is asked of the records of commands, as closures for the database threads.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Result, params};
use types::{ExecId, OwnerId, SandboxId, Timestamp};

use super::rows::{self, integer, nanos};
use super::statements;
use crate::exec::LOST;
use crate::{ExecEnd, ExecOutput, ExecPage, ExecRecord};

/// Outputs that are kept of one sandbox's ended commands: the newest.
const OUTPUTS: u32 = 64;
/// Records that one trim removes at most, beside as many as are written: where the limit was
/// lowered, the rest goes later.
const TRIMMED: u64 = 256;

/// `Some`: the id is taken, by this one.
pub(super) fn insert(db: &Connection, exec: &ExecRecord) -> Result<Option<ExecRecord>> {
    let inserted = db.prepare_cached(statements::INSERT_EXEC)?.execute(params![
        exec.sandbox_id.as_str(),
        exec.exec_id.as_str(),
        exec.tenant_id.as_ref().map(|tenant| tenant.as_str()),
        exec.owner_id.as_ref().map(OwnerId::as_str),
        exec.command,
        exec.fingerprint,
        exec.run_as,
        exec.tty,
        nanos(exec.created_at),
        exec.started_at.map(nanos),
        exec.kind.as_str(),
        exec.workdir,
    ])?;
    if inserted == 1 { Ok(None) } else { get(db, &exec.sandbox_id, &exec.exec_id) }
}

/// Plain ones, and what of their sandboxes is more than `keep` of them.
pub(super) fn record(db: &Connection, execs: &[ExecRecord], keep: u64) -> Result<()> {
    let mut sandboxes = BTreeSet::new();
    for exec in execs {
        record_one(db, exec)?;
        sandboxes.insert(exec.sandbox_id.as_str());
    }
    if keep == 0 {
        return Ok(());
    }
    for of in sandboxes {
        let mut counting = db.prepare_cached(statements::COUNT_PLAIN_EXECS)?;
        let held: Option<i64> = counting.query_row([of], |row| row.get(0)).optional()?;
        let held = held.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let more = held.saturating_sub(keep).min(execs.len() as u64 + TRIMMED);
        if more > 0 {
            let trim = params![of, integer(more)];
            db.prepare_cached(statements::TRIM_PLAIN_EXECS)?.execute(trim)?;
        }
    }
    Ok(())
}

fn record_one(db: &Connection, exec: &ExecRecord) -> Result<()> {
    let end = exec.end.as_ref();
    let mut lost = end.and_then(|end| end.lost.clone());
    // Its sandbox knows more.
    if lost.as_deref() == Some(LOST) {
        let mut asking = db.prepare_cached(statements::WHY_ENDED)?;
        let why = asking.query_row([exec.sandbox_id.as_str()], |row| row.get(0)).optional()?;
        lost = why.flatten().or(lost);
    }
    db.prepare_cached(statements::RECORD_EXEC)?.execute(params![
        exec.sandbox_id.as_str(),
        exec.exec_id.as_str(),
        exec.tenant_id.as_ref().map(|tenant| tenant.as_str()),
        exec.owner_id.as_ref().map(OwnerId::as_str),
        exec.command,
        exec.fingerprint,
        exec.run_as,
        exec.tty,
        nanos(exec.created_at),
        exec.started_at.map(nanos),
        end.map(|end| nanos(end.at)),
        end.and_then(|end| end.exit_code),
        end.map(|end| end.signal),
        end.is_some_and(|end| end.timed_out),
        end.is_some_and(|end| end.oom_killed),
        lost,
        exec.kind.as_str(),
        exec.workdir,
    ])?;
    Ok(())
}

pub(super) fn get(db: &Connection, of: &SandboxId, exec: &ExecId) -> Result<Option<ExecRecord>> {
    let mut statement = db.prepare_cached(statements::GET_EXEC)?;
    statement.query_row([of.as_str(), exec.as_str()], rows::exec).optional()
}

pub(super) fn list(db: &Connection, of: &SandboxId, page: &ExecPage) -> Result<Vec<ExecRecord>> {
    let (time, id) = match &page.after {
        Some((time, id)) => (nanos(*time), id.as_str()),
        None => (i64::MAX, ""),
    };
    let sql = if page.running { statements::LIST_RUNNING_EXECS_OF } else { statements::LIST_EXECS };
    let mut statement = db.prepare_cached(sql)?;
    statement.query_map(params![of.as_str(), time, id, page.limit], rows::exec)?.collect()
}

pub(super) fn running(db: &Connection) -> Result<Vec<ExecRecord>> {
    db.prepare_cached(statements::LIST_RUNNING_EXECS)?.query_map([], rows::exec)?.collect()
}

pub(super) fn started(
    db: &Connection,
    of: &SandboxId,
    exec: &ExecId,
    at: Timestamp,
) -> Result<bool> {
    let values = params![of.as_str(), exec.as_str(), nanos(at)];
    Ok(db.prepare_cached(statements::EXEC_STARTED)?.execute(values)? == 1)
}

pub(super) fn forget(db: &Connection, of: &SandboxId, exec: &ExecId) -> Result<bool> {
    Ok(db.prepare_cached(statements::FORGET_EXEC)?.execute([of.as_str(), exec.as_str()])? == 1)
}

/// Only the first end counts; an output replaces one that does not come further all the same.
pub(super) fn end(
    db: &Connection,
    of: &SandboxId,
    exec: &ExecId,
    end: Option<&ExecEnd>,
    output: Option<&ExecOutput>,
) -> Result<()> {
    if let Some(output) = output {
        let runs: Vec<(u8, u32)> = output.runs.iter().map(|(e, n)| (u8::from(*e), *n)).collect();
        db.prepare_cached(statements::KEEP_OUTPUT)?.execute(params![
            of.as_str(),
            exec.as_str(),
            integer(output.first),
            rows::json(Some(&runs))?,
            output.bytes,
        ])?;
        db.prepare_cached(statements::TRIM_OUTPUTS)?.execute(params![of.as_str(), OUTPUTS])?;
    }
    if let Some(end) = end {
        db.prepare_cached(statements::EXEC_ENDED)?.execute(params![
            of.as_str(),
            exec.as_str(),
            nanos(end.at),
            end.exit_code,
            end.signal,
            end.timed_out,
            end.oom_killed,
            end.lost,
        ])?;
    }
    Ok(())
}

pub(super) fn output(db: &Connection, of: &SandboxId, exec: &ExecId) -> Result<Option<ExecOutput>> {
    let mut statement = db.prepare_cached(statements::GET_OUTPUT)?;
    statement.query_row([of.as_str(), exec.as_str()], rows::exec_output).optional()
}

pub(super) fn purge(db: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let gone =
        db.prepare_cached(statements::PURGE_EXECS)?.execute(params![nanos(before), limit])?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}
