//! What is asked of the worker registry, as closures for the database threads.

use rusqlite::{Connection, OptionalExtension, Result, params};
use types::WorkerId;

use super::rows::{self, nanos};
use super::statements;
use crate::WorkerRecord;

pub(super) fn upsert(db: &Connection, worker: &WorkerRecord) -> Result<WorkerRecord> {
    let values = params![
        worker.id.as_str(),
        worker.hostname,
        worker.status,
        rows::json(worker.providers.as_ref())?,
        rows::json(worker.capabilities.as_ref())?,
        rows::json(worker.capacity.as_ref())?,
        nanos(worker.last_heartbeat),
        nanos(worker.created_at),
        nanos(worker.updated_at),
    ];
    db.prepare_cached(statements::UPSERT_WORKER)?.query_row(values, rows::worker)
}

pub(super) fn get(db: &Connection, id: &WorkerId) -> Result<Option<WorkerRecord>> {
    let mut statement = db.prepare_cached(statements::GET_WORKER)?;
    statement.query_row([id.as_str()], rows::worker).optional()
}

pub(super) fn list(db: &Connection) -> Result<Vec<WorkerRecord>> {
    db.prepare_cached(statements::LIST_WORKERS)?.query_map([], rows::worker)?.collect()
}

pub(super) fn delete(db: &Connection, id: &WorkerId) -> Result<bool> {
    Ok(db.prepare_cached(statements::DELETE_WORKER)?.execute([id.as_str()])? > 0)
}
