//! From a path to connections: guarded, tuned and migrated.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use types::clock::SharedClock;

use super::{checkpoint, errors, guard, migrations, rows, statements};
use crate::StoreError;

/// The statements of [`statements`] and a few more.
const CACHED_STATEMENTS: usize = 64;
const INSTALLATION: &str = "installation_id";

/// A database that is ours, locked for this process and of the latest schema.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) writer: Connection,
    pub(super) lock: File,
    pub(super) installation_id: String,
}

pub(super) fn open(
    path: &Path,
    busy_timeout: Duration,
    clock: &SharedClock,
) -> Result<Opened, StoreError> {
    // By its real name: a second way to the same file must meet the same lock.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    guard::look(&path)?;
    let lock = guard::lock(&path)?;
    // Once more, since the one who held the lock until now may have made the file.
    guard::look(&path)?;
    guard::look_into_log(&path)?;
    drop(guard::create_private(&path)?);
    let now = rows::nanos(clock.wall());
    let mut writer = writable(&path, busy_timeout)?;
    migrations::run(&mut writer, now).map_err(errors::at_opening)?;
    let installation_id = installation_id(&writer)?;
    Ok(Opened { path, writer, lock, installation_id })
}

fn writable(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(busy_timeout)?;
        let mark: u32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if mark != guard::APPLICATION_ID {
            // Before the log is switched on, so that it always stands in the file's own header.
            db.pragma_update(None, "application_id", guard::APPLICATION_ID)?;
        }
        let mode: String =
            db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        // A commit survives this process, not a power cut: no fsync for each.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "foreign_keys", "ON")?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        db.pragma_update_and_check(None, "journal_size_limit", checkpoint::LOG_KEPT, |_| Ok(()))?;
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok((db, mode))
    };
    let (db, mode) = open().map_err(errors::at_opening)?;
    if mode != "wal" {
        return Err(StoreError::Broken("this file system cannot hold a write-ahead log".into()));
    }
    Ok(db)
}

/// A second connection that may write, for the checkpointer.
pub(super) fn for_checkpoints(path: &Path) -> Result<Connection, StoreError> {
    writable(path, Duration::ZERO)
}

pub(super) fn for_reading(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(busy_timeout)?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok(db)
    };
    open().map_err(errors::at_opening)
}

/// Made at the first opening, 32 hexadecimal characters.
fn installation_id(db: &Connection) -> Result<String, StoreError> {
    let known = db
        .query_row(statements::GET_META, [INSTALLATION], |row| row.get(0))
        .optional()
        .map_err(errors::at_opening)?;
    if let Some(id) = known {
        return Ok(id);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Broken(Box::new(e)))?;
    let id = data_encoding::HEXLOWER.encode(&bytes);
    db.execute(statements::SET_META, params![INSTALLATION, id]).map_err(errors::at_opening)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bug_49_every_pragma_took_effect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(guard::create_private(&path).unwrap());
        let db = writable(&path, Duration::from_millis(1234)).unwrap();
        let get = |name| -> String {
            let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            let sql = sql.replace("CAST(busy_timeout ", "CAST(timeout ");
            db.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(get("journal_mode"), "wal");
        assert_eq!(get("synchronous"), "1");
        assert_eq!(get("foreign_keys"), "1");
        assert_eq!(get("temp_store"), "2");
        assert_eq!(get("busy_timeout"), "1234");
        assert_eq!(get("journal_size_limit"), checkpoint::LOG_KEPT.to_string());
        assert_eq!(get("application_id"), guard::APPLICATION_ID.to_string());
    }
}
