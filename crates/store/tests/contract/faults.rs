//! Crashes, full disks and locks, on SQLite.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use store::{InsertOutcome, Limits, ListFilter, SqliteOptions, SqliteStore, Store, StoreError};
use types::Sandbox;

use crate::bed::{Bed, SqliteBed, id, sandbox};

const CHILD: &str = "STORE_TEST_DATABASE";

/// Nothing by itself: it is run as a child by the test below and killed.
#[tokio::test]
#[ignore = "run by what_was_answered_survives_kill_9"]
#[allow(clippy::disallowed_methods)] // how a test tells its child where to write
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = SqliteStore::open(Path::new(&path), SqliteOptions::default()).unwrap();
    for number in 0..1_000_000 {
        store.insert_sandbox(sandbox(number), Limits::default(), None).await.unwrap();
        println!("answered {number}");
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let bed = SqliteBed::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "faults::child_that_writes_until_it_is_killed"])
            .env(CHILD, bed.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = 0;
        for _ in 0..round * 40 {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, number)) = line.split_once("answered ") {
                answered = number.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(answered > 0);

        let store = bed.open();
        for number in 0..=answered {
            assert!(store.sandbox(id(number)).await.unwrap().is_some(), "{number} is lost");
        }
        let live = store.sandboxes(ListFilter::default()).await.unwrap().len() as u64;
        assert_eq!(store.counts(None).await.unwrap().total, live);
        store.close().await;
        std::fs::remove_file(bed.path()).unwrap();
    }
}

#[tokio::test]
async fn a_lock_held_too_long_is_busy_and_then_over() {
    let bed = SqliteBed::new();
    let busy_timeout = Duration::from_millis(50);
    let options = SqliteOptions { busy_timeout, ..SqliteOptions::default() };
    let store = SqliteStore::open(&bed.path(), options).unwrap();
    store.insert_sandbox(sandbox(1), Limits::default(), None).await.unwrap();

    let other = Connection::open(bed.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.insert_sandbox(sandbox(2), Limits::default(), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    bug_53_shows_no_sql_nor_path(&error);
    assert!(matches!(store.check().await, Err(StoreError::Busy(_))));
    // Who only reads does not wait for who writes.
    assert!(store.sandbox(id(1)).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();

    let outcome = store.insert_sandbox(sandbox(2), Limits::default(), None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Inserted);
    store.close().await;
}

#[tokio::test]
async fn a_lock_that_goes_in_time_is_waited_for() {
    let bed = SqliteBed::new();
    let store = bed.open();
    let other = Connection::open(bed.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.insert_sandbox(sandbox(1), Limits::default(), None).await }
    });
    assert!(store.sandbox(id(1)).await.unwrap().is_none());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), InsertOutcome::Inserted);
    store.close().await;
}

/// A small file system of its own, gone with the value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", option.as_str(), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_half_made() {
    let Some(disk) = Tmpfs::mount("4m") else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let ballast = disk.path("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let path = disk.path("stacyvm.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let heavy = |number| {
        let metadata = [("k".to_owned(), "v".repeat(10_000))].into();
        Sandbox { metadata, ..sandbox(number) }
    };
    let mut inserted = 0;
    let error = loop {
        match store.insert_sandbox(heavy(inserted), Limits::default(), None).await {
            Ok(outcome) => assert_eq!(outcome, InsertOutcome::Inserted),
            Err(error) => break error,
        }
        inserted += 1;
        assert!(inserted < 1000, "the disk does not fill");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    bug_53_shows_no_sql_nor_path(&error);
    assert!(inserted > 10);
    all_there(&*store, inserted).await;

    std::fs::remove_file(&ballast).unwrap();
    let outcome = store.insert_sandbox(heavy(inserted), Limits::default(), None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Inserted);
    all_there(&*store, inserted + 1).await;
    store.close().await;
    drop(store);

    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    all_there(&*store, inserted + 1).await;
    store.close().await;
}

async fn all_there(store: &dyn Store, count: u64) {
    assert_eq!(store.counts(None).await.unwrap().total, count);
    let live = store.sandboxes(ListFilter::default()).await.unwrap();
    assert_eq!(live.len() as u64, count);
    assert!(live.iter().all(|s| s.metadata["k"].len() == 10_000));
}

/// Of any error of the store that a caller might be shown.
fn bug_53_shows_no_sql_nor_path(error: &StoreError) {
    let shown = error.to_string().to_lowercase();
    for secret in ["/", ".db", "insert", "select", "begin", "sandboxes", "sqlite", "constraint"] {
        assert!(!shown.contains(secret), "{shown:?} holds {secret:?}");
    }
}
