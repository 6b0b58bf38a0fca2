//! What is asked of the records of commands, as closures for the database threads.

use rusqlite::{Connection, OptionalExtension, Result, params};
use types::{ExecId, OwnerId, SandboxId, Timestamp};

use super::rows::{self, integer, nanos};
use super::statements;
use crate::{ExecEnd, ExecOutput, ExecRecord};

/// Outputs that are kept of one sandbox's ended commands: the newest.
const OUTPUTS: u32 = 64;

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
    ])?;
    if inserted == 1 { Ok(None) } else { get(db, &exec.sandbox_id, &exec.exec_id) }
}

pub(super) fn get(db: &Connection, of: &SandboxId, exec: &ExecId) -> Result<Option<ExecRecord>> {
    let mut statement = db.prepare_cached(statements::GET_EXEC)?;
    statement.query_row([of.as_str(), exec.as_str()], rows::exec).optional()
}

pub(super) fn list(db: &Connection, of: &SandboxId, limit: u32) -> Result<Vec<ExecRecord>> {
    let mut statement = db.prepare_cached(statements::LIST_EXECS)?;
    statement.query_map(params![of.as_str(), limit], rows::exec)?.collect()
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
