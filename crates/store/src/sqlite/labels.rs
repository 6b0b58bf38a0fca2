//! Metadata by key and value. Written with the row of its sandbox, in the same transaction.

use rusqlite::{Connection, Result, params};
use types::Sandbox;

use super::rows::{Labelled, nanos};
use super::statements;

pub(super) fn add(db: &Connection, sandbox: &Sandbox) -> Result<()> {
    let (made, id) = (nanos(sandbox.created_at), sandbox.id.as_str());
    for (key, value) in &sandbox.metadata {
        let values = params![key, value, !sandbox.state.is_final(), made, id];
        db.prepare_cached(statements::ADD_LABEL)?.execute(values)?;
    }
    Ok(())
}

/// Its sandbox is destroyed.
pub(super) fn end(db: &Connection, sandbox: &Sandbox) -> Result<()> {
    let (made, id) = (nanos(sandbox.created_at), sandbox.id.as_str());
    for (key, value) in &sandbox.metadata {
        db.prepare_cached(statements::END_LABEL)?.execute(params![key, value, made, id])?;
    }
    Ok(())
}

/// Its sandbox is forgotten.
pub(super) fn forget(db: &Connection, gone: &Labelled) -> Result<()> {
    for (key, value) in &gone.metadata {
        let values = params![key, value, nanos(gone.created_at), gone.id.as_str()];
        db.prepare_cached(statements::DROP_LABEL)?.execute(values)?;
    }
    Ok(())
}
