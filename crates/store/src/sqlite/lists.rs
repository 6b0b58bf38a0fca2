//! Lists of sandboxes: one index leads, the rest of the filter is held against its rows, and the
//! reading stops when there are enough.

use rusqlite::{Connection, Params, Result, params};
use types::{Sandbox, SandboxState, TenantId};

use super::rows::{self, nanos};
use super::statements;
use crate::ListFilter;

pub(super) fn list(db: &Connection, filter: &ListFilter) -> Result<Vec<Sandbox>> {
    let (time, id) = match &filter.after {
        Some((time, id)) => (nanos(*time), id.as_str()),
        None => (i64::MAX, ""),
    };
    let ended = filter.states == [SandboxState::Destroyed];
    let tenant = filter.tenant.as_ref().map(TenantId::as_str);
    // The most telling one that there is.
    if let Some((key, value)) = filter.labels.first() {
        let leading = params![time, id, key, value, !ended];
        return take(db, statements::LIST_LABELLED, leading, filter);
    }
    match (&filter.states[..], tenant) {
        ([SandboxState::Destroyed], None) => {
            take(db, statements::LIST_ENDED, params![time, id], filter)
        }
        ([SandboxState::Destroyed], Some(tenant)) => {
            take(db, statements::LIST_ENDED_OF_TENANT, params![time, id, tenant], filter)
        }
        ([state], _) if *state != SandboxState::Running => {
            take(db, statements::LIST_IN_STATE, params![time, id, state.as_str()], filter)
        }
        (_, Some(tenant)) => {
            take(db, statements::LIST_OF_TENANT, params![time, id, tenant], filter)
        }
        (_, None) => match &filter.provider {
            Some(name) => take(db, statements::LIST_OF_PROVIDER, params![time, id, name], filter),
            None => take(db, statements::LIST, params![time, id], filter),
        },
    }
}

fn take(
    db: &Connection,
    sql: &str,
    leading: impl Params,
    filter: &ListFilter,
) -> Result<Vec<Sandbox>> {
    let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query_map(leading, rows::sandbox)?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next().transpose()?
    {
        if filter.lets_through(&row) {
            found.push(row);
        }
    }
    Ok(found)
}
