//! How the threads behave: what only closures of our own can show.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::task::JoinHandle;

use super::{SqliteOptions, SqliteStore};
use crate::{Store, StoreError};

fn store(options: SqliteOptions) -> (tempfile::TempDir, Arc<SqliteStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("a.db"), options).unwrap();
    (dir, store)
}

fn mark(db: &Connection, key: &str) -> rusqlite::Result<()> {
    db.execute("INSERT INTO meta (key, value) VALUES (?1, '')", [key]).map(|_| ())
}

async fn marks(store: &SqliteStore) -> String {
    let sql = "SELECT coalesce(group_concat(key, ' ' ORDER BY key), '') FROM meta \
               WHERE key LIKE 'mark-%'";
    store.writer.ask(move |db| db.query_row(sql, [], |row| row.get(0))).await.unwrap()
}

type Answered = JoinHandle<Result<(), StoreError>>;

/// Asks, and returns once the job is in the queue.
async fn queued<F>(store: &Arc<SqliteStore>, work: F) -> Answered
where
    F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
{
    let mut asked = Box::pin({
        let store = Arc::clone(store);
        async move { store.writer.ask(work).await }
    });
    // One poll puts it into a queue that has room.
    let done = std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx))).await;
    assert!(done.is_pending());
    tokio::spawn(asked)
}

/// Keeps the writer in a job until the returned sender is used or dropped.
async fn hold_writer(store: &Arc<SqliteStore>) -> (mpsc::Sender<()>, Answered) {
    let (go, gone) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let held = queued(store, move |_| {
        let _ = begun.send(());
        let _ = gone.recv();
        Ok(())
    })
    .await;
    has_begun.await.unwrap();
    (go, held)
}

#[tokio::test]
async fn one_failed_closure_takes_nothing_but_its_own_changes() {
    let (_dir, store) = store(SqliteOptions::default());
    let (go, held) = hold_writer(&store).await;
    let a = queued(&store, |db| mark(db, "mark-a")).await;
    let b = queued(&store, |db| {
        mark(db, "mark-b")?;
        mark(db, "mark-b")
    })
    .await;
    let c = queued(&store, |db| mark(db, "mark-c")).await;
    drop(go);
    held.await.unwrap().unwrap();
    a.await.unwrap().unwrap();
    assert!(matches!(b.await.unwrap(), Err(StoreError::Broken(_))));
    c.await.unwrap().unwrap();
    assert_eq!(marks(&store).await, "mark-a mark-c");
}

#[tokio::test]
async fn a_lost_transaction_is_answered_to_all_that_were_in_it() {
    let (_dir, store) = store(SqliteOptions::default());
    let (go, held) = hold_writer(&store).await;
    let a = queued(&store, |db| mark(db, "mark-a")).await;
    // As SQLite does by itself when the disk is full.
    let b = queued(&store, |db| {
        db.execute_batch("ROLLBACK")?;
        Err(rusqlite::Error::QueryReturnedNoRows)
    })
    .await;
    let c = queued(&store, |db| mark(db, "mark-c")).await;
    drop(go);
    held.await.unwrap().unwrap();
    assert!(a.await.unwrap().is_err());
    assert!(b.await.unwrap().is_err());
    assert!(c.await.unwrap().is_err());
    assert_eq!(marks(&store).await, "");
    store.writer.ask(|db| mark(db, "mark-d")).await.unwrap();
    assert_eq!(marks(&store).await, "mark-d");
}

#[tokio::test]
async fn nobody_waits_longer_than_the_busy_policy() {
    let busy_timeout = Duration::from_millis(100);
    let options = SqliteOptions { busy_timeout, queue: 1, ..SqliteOptions::default() };
    let (_dir, store) = store(options);
    let (go, held) = hold_writer(&store).await;
    let in_queue = queued(&store, |db| mark(db, "mark-a")).await;
    let no_room = store.writer.ask(|db| mark(db, "mark-b")).await;
    assert!(matches!(no_room, Err(StoreError::Busy(_))));
    // Waiting for room took as long as the policy of the one before it allows.
    drop(go);
    held.await.unwrap().unwrap();
    assert!(matches!(in_queue.await.unwrap(), Err(StoreError::Busy(_))));
    // What was answered Busy was not done, then or later.
    assert_eq!(marks(&store).await, "");
}

#[tokio::test]
async fn closing_finishes_what_was_accepted() {
    let (dir, store) = store(SqliteOptions::default());
    let (go, held) = hold_writer(&store).await;
    let a = queued(&store, |db| mark(db, "mark-a")).await;
    let closing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.close().await }
    });
    drop(go);
    closing.await.unwrap();
    held.await.unwrap().unwrap();
    a.await.unwrap().unwrap();
    assert!(!dir.path().join("a.db-wal").exists(), "the log was not folded away");
    let again = SqliteStore::open(&dir.path().join("a.db"), SqliteOptions::default()).unwrap();
    assert_eq!(marks(&again).await, "mark-a");
}

#[tokio::test]
async fn the_log_stays_short() {
    let (dir, store) = store(SqliteOptions::default());
    for i in 0..600 {
        let value = "x".repeat(200_000);
        let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
        store
            .writer
            .ask(move |db| db.execute(sql, [format!("{i}"), value]).map(|_| ()))
            .await
            .unwrap();
    }
    let log = dir.path().join("a.db-wal").metadata().unwrap().len();
    assert!(log < 72 * 1024 * 1024, "120 MB written left a log of {log}");
    store.close().await;
}
