//! Which files are opened as a database, and which are refused untouched.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use store::{SqliteOptions, SqliteStore, Store, StoreError};

use crate::bed::{Bed, SqliteBed};

fn open(path: &Path) -> Result<(), StoreError> {
    SqliteStore::open(path, SqliteOptions::default()).map(|_| ())
}

/// Every file of a directory and its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(&path).unwrap())
    };
    std::fs::read_dir(dir).unwrap().map(read).collect()
}

fn assert_refused(path: &Path, because: &str) {
    let before = contents(path.parent().unwrap());
    match open(path) {
        Err(StoreError::Foreign(text)) => {
            assert!(text.contains(because), "{text}");
            assert!(!text.contains('/') && !text.contains(".db"), "{text}");
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(contents(path.parent().unwrap()), before);
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stacyvm.db");
    for bytes in [&b"x"[..], &[b'y'; 5000], b"SQLite format 3\0 cut short"] {
        std::fs::write(&path, bytes).unwrap();
        assert_refused(&path, "not an SQLite database");
    }
}

#[test]
fn another_products_database_is_left_alone() {
    for journal in ["DELETE", "WAL"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stacyvm.db");
        let peer = Connection::open(&path).unwrap();
        peer.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(())).unwrap();
        peer.execute_batch("CREATE TABLE sandboxes (id TEXT); INSERT INTO sandboxes VALUES (1)")
            .unwrap();
        // Also while the other product runs.
        assert_refused(&path, "another program");
        drop(peer);
        assert_refused(&path, "another program");
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let bed = SqliteBed::new();
    bed.open().close().await;
    let newer = Connection::open(bed.path()).unwrap();
    newer.pragma_update(None, "user_version", 999).unwrap();
    newer.close().unwrap();
    assert_refused(&bed.path(), "newer");
}

#[tokio::test]
async fn a_newer_schema_is_seen_in_the_log_that_a_crash_left() {
    let bed = SqliteBed::new();
    bed.open().close().await;
    let newer = Connection::open(bed.path()).unwrap();
    newer.pragma_update(None, "user_version", 999).unwrap();
    // As after kill -9: the database and its log, with nobody there who has them open.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["stacyvm.db", "stacyvm.db-wal"] {
        std::fs::copy(bed.dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    let before = contents(crashed.path());
    let refused = open(&crashed.path().join("stacyvm.db"));
    assert!(matches!(&refused, Err(StoreError::Foreign(text)) if text.contains("newer")));
    let after = contents(crashed.path());
    for (name, bytes) in before {
        assert_eq!(after.get(&name), Some(&bytes), "{name} has changed");
    }
}

#[tokio::test]
async fn an_empty_file_becomes_a_database_of_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bed = SqliteBed::new();
    bed.open().close().await;
    let mode = std::fs::metadata(bed.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let header = std::fs::read(bed.path()).unwrap();
    assert_eq!(&header[68..72], b"StVM");
    assert_eq!(header[18..20], [2, 2], "not in WAL mode");

    let empty = bed.dir.path().join("empty.db");
    std::fs::write(&empty, b"").unwrap();
    let store = SqliteStore::open(&empty, SqliteOptions::default()).unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_also_by_another_name() {
    let bed = SqliteBed::new();
    let first = bed.open();
    let link = bed.dir.path().join("link.db");
    std::os::unix::fs::symlink(bed.path(), &link).unwrap();
    for path in [bed.path(), link] {
        match open(&path) {
            Err(StoreError::Foreign(text)) => {
                assert_eq!(text, "another stacyvm serve is using this database");
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    first.check().await.unwrap();
    first.close().await;
    open(&bed.path()).unwrap();
}
