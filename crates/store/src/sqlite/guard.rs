//! Looks at a file before anything is written: what is not ours stays as it is, byte for byte.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{errors, migrations};
use crate::StoreError;

/// "StVM", at byte 68 of every database of ours, so that nobody else's is taken for it.
pub(super) const APPLICATION_ID: u32 = 0x5374_564d;

const HEADER: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const AT_USER_VERSION: usize = 60;
const AT_APPLICATION_ID: usize = 68;

/// Refuses what is not a database of ours, or is of a newer schema. Reads the header itself, since
/// SQLite may write beside a database that it only looks at.
pub(super) fn look(path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(HEADER);
    match File::open(path) {
        Ok(file) => file.take(HEADER as u64).read_to_end(&mut header).map_err(errors::from_io)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(errors::from_io(error)),
    };
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER || !header.starts_with(MAGIC) {
        return Err(StoreError::Foreign("the database file is not an SQLite database".into()));
    }
    if number_at(&header, AT_APPLICATION_ID) != APPLICATION_ID {
        let text = "the database file belongs to another program, it is left untouched";
        return Err(StoreError::Foreign(text.into()));
    }
    refuse_newer(number_at(&header, AT_USER_VERSION))
}

/// The same question to the log: after a crash the newest schema version may stand there only.
pub(super) fn look_into_log(path: &Path) -> Result<(), StoreError> {
    let log = std::fs::metadata(beside(path, "-wal"));
    if !log.is_ok_and(|log| log.len() > 0) {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(errors::at_opening)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(errors::at_opening)?;
    let version = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(errors::at_opening)?;
    refuse_newer(version)
}

/// Takes the database for this process, for as long as the file is held.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let lock = create_private(&beside(path, ".lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let text = "another stacyvm serve is using this database";
            Err(StoreError::Foreign(text.into()))
        }
        Err(TryLockError::Error(error)) => Err(errors::from_io(error)),
    }
}

/// Opens a file, made for its owner alone if it is not there.
pub(super) fn create_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(errors::from_io)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn number_at(header: &[u8], at: usize) -> u32 {
    header[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn refuse_newer(version: u32) -> Result<(), StoreError> {
    let known = migrations::latest();
    if version <= known {
        return Ok(());
    }
    Err(StoreError::Foreign(format!(
        "the database was written by a newer StacyVM (schema {version}, this one knows {known})"
    )))
}
