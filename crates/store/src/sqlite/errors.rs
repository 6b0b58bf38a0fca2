//! SQLite's and the file system's errors in the store's words.

use std::io;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::StoreError;

/// An error that several answers may share, as when one commit fails for all that are in it.
pub(super) type SharedError = Arc<rusqlite::Error>;

/// Failed writes to the database's files; on a full disk they come in these colours, too.
const FAILED_WRITES: [i32; 5] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_SHMSIZE,
];

pub(super) fn from_sqlite(error: SharedError) -> StoreError {
    let Some(failure) = error.sqlite_error() else {
        return StoreError::Broken(Box::new(error));
    };
    // ErrorCode is the library's enum: what it adds later is a failure like any other.
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full(Box::new(error)),
        _ if FAILED_WRITES.contains(&failure.extended_code) => StoreError::Full(Box::new(error)),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => StoreError::Busy(Box::new(error)),
        _ => StoreError::Broken(Box::new(error)),
    }
}

/// For what happens before there are threads.
pub(super) fn at_opening(error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return StoreError::Foreign("the database file is not an SQLite database".into());
    }
    from_sqlite(Arc::new(error))
}

pub(super) fn from_io(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(Box::new(error))
        }
        _ => StoreError::Broken(Box::new(error)),
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn busy(why: &'static str) -> StoreError {
    StoreError::Busy(why.into())
}
