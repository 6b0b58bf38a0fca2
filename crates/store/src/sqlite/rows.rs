//! Records to rows and back.

use std::collections::BTreeMap;
use std::fmt::Display;

use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::{
    EndedReason, ExecId, OwnerId, Sandbox, SandboxId, SandboxName, SandboxSize, SandboxState,
    TenantId, Timestamp, WorkerId,
};

use crate::{ExecEnd, ExecKind, ExecOutput, ExecRecord, WorkerRecord};

/// Nanoseconds as SQLite keeps them: 1677 to 2262, and "never" is the last of them.
pub(super) fn nanos(time: Timestamp) -> i64 {
    let floor = i128::from(i64::MIN);
    i64::try_from(time.unix_nanos().max(floor)).unwrap_or(i64::MAX)
}

/// Generations and counts as SQLite keeps them.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn natural(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// JSON text, or NULL for what is absent.
pub(super) fn json(value: Option<&impl Serialize>) -> Result<Option<String>> {
    value
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| Error::ToSqlConversionFailure(e.into()))
}

pub(super) fn sandbox(row: &Row<'_>) -> Result<Sandbox> {
    Ok(Sandbox {
        id: word(row, 0, SandboxId::parse)?,
        state: word(row, 1, |text: String| SandboxState::parse(&text).ok_or("an unknown state"))?,
        provider: row.get(2)?,
        image: row.get(3)?,
        size: SandboxSize { memory_mb: row.get(4)?, vcpus: row.get(5)?, disk_size_mb: row.get(6)? },
        owner_id: optional_word(row, 7, OwnerId::parse)?,
        tenant_id: optional_word(row, 8, TenantId::parse)?,
        vm_id: row.get(9)?,
        worker_id: word(row, 10, WorkerId::parse)?,
        generation: natural(row, 11)?,
        created_at: time(row, 12)?,
        expires_at: time(row, 13)?,
        metadata: parsed_json(row, 14)?.unwrap_or_default(),
        preview_domain: row.get(15)?,
        ended_reason: optional_word(row, 16, |text: String| {
            EndedReason::parse(&text).ok_or("an unknown reason")
        })?,
        answered: row.get(17)?,
        name: optional_word(row, 18, SandboxName::parse)?,
        keyed: natural(row, 19)? > 0,
    })
}

/// What is left of a row that goes, as far as its labels need it.
pub(super) struct Labelled {
    pub id: SandboxId,
    pub created_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
}

pub(super) fn labelled(row: &Row<'_>) -> Result<Labelled> {
    Ok(Labelled {
        id: word(row, 0, SandboxId::parse)?,
        created_at: time(row, 1)?,
        metadata: parsed_json(row, 2)?.unwrap_or_default(),
    })
}

pub(super) fn exec(row: &Row<'_>) -> Result<ExecRecord> {
    let ended: Option<i64> = row.get(10)?;
    let end = match ended {
        None => None,
        Some(_) => Some(ExecEnd {
            at: time(row, 10)?,
            exit_code: row.get(11)?,
            signal: row.get::<_, Option<i32>>(12)?.unwrap_or(0),
            timed_out: row.get(13)?,
            oom_killed: row.get(14)?,
            lost: row.get(15)?,
        }),
    };
    let started: Option<i64> = row.get(9)?;
    Ok(ExecRecord {
        sandbox_id: word(row, 0, SandboxId::parse)?,
        exec_id: word(row, 1, ExecId::parse)?,
        tenant_id: optional_word(row, 2, TenantId::parse)?,
        owner_id: optional_word(row, 3, OwnerId::parse)?,
        command: row.get(4)?,
        fingerprint: row.get(5)?,
        run_as: row.get(6)?,
        tty: row.get(7)?,
        created_at: time(row, 8)?,
        started_at: started.map(|n| Timestamp::from_unix_nanos(n.into())),
        kind: word(row, 16, |text: String| ExecKind::parse(&text).ok_or("an unknown kind"))?,
        workdir: row.get(17)?,
        end,
    })
}

pub(super) fn exec_output(row: &Row<'_>) -> Result<ExecOutput> {
    let runs: Vec<(u8, u32)> = parsed_json(row, 1)?.unwrap_or_default();
    Ok(ExecOutput {
        first: natural(row, 0)?,
        runs: runs.into_iter().map(|(stream, len)| (stream != 0, len)).collect(),
        bytes: row.get(2)?,
    })
}

pub(super) fn worker(row: &Row<'_>) -> Result<WorkerRecord> {
    Ok(WorkerRecord {
        id: word(row, 0, WorkerId::parse)?,
        hostname: row.get(1)?,
        status: row.get(2)?,
        providers: parsed_json(row, 3)?,
        capabilities: parsed_json(row, 4)?,
        capacity: parsed_json(row, 5)?,
        last_heartbeat: time(row, 6)?,
        created_at: time(row, 7)?,
        updated_at: time(row, 8)?,
    })
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    Ok(Timestamp::from_unix_nanos(row.get::<_, i64>(column)?.into()))
}

pub(super) fn word<T, E: Display>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<T> {
    parse(row.get(column)?).map_err(|e| unreadable(column, e))
}

fn optional_word<T, E: Display>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(parse).transpose().map_err(|e| unreadable(column, e))
}

fn parsed_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    optional_word(row, column, |text: String| serde_json::from_str(&text))
}

fn unreadable(column: usize, problem: impl Display) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, problem.to_string().into())
}
