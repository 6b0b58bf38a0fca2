//! The one thread that writes: many closures, each in a savepoint, one commit.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::mpsc;
use types::clock::{Clock, SystemClock};

use super::checkpoint::Checkpoints;
use super::errors::{self, SharedError};
use super::job::{Job, Message};
use super::statements;

/// Closures in one commit at most: enough that 64 clients share one, and few enough that the first
/// does not wait long for the last (some 20 µs each).
const BATCH: usize = 128;

/// The pause before another try where SQLite says busy at once instead of waiting.
const PAUSE: Duration = Duration::from_millis(1);

/// What the writer's thread holds for its life.
pub(super) struct Writer {
    connection: Connection,
    /// Held, not used: it keeps a second server away from this database.
    lock: File,
    pages_in_log: Arc<AtomicU32>,
    checkpoints: Checkpoints,
}

/// What is left of it: to be closed after the last reader, so that SQLite folds the log away.
pub(super) struct Ended {
    connection: Connection,
    lock: File,
}

impl Ended {
    pub(super) fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
        drop(self.lock);
    }
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        lock: File,
        checkpoints: Checkpoints,
    ) -> rusqlite::Result<Self> {
        let pages_in_log = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages_in_log);
        // This also takes the place of SQLite's own checkpoint within a commit.
        connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { connection, lock, pages_in_log, checkpoints })
    }

    /// Works until the lane is closed and empty.
    pub(super) fn run(mut self, mut lane: mpsc::Receiver<Message>) -> Ended {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut batch = Vec::with_capacity(BATCH);
        while lane.blocking_recv_many(&mut inbox, BATCH) > 0 {
            for message in inbox.drain(..) {
                match message {
                    Message::Job(job) => batch.push(job),
                    Message::Close => lane.close(),
                }
            }
            if self.begin(&mut batch) {
                self.finish(&mut batch);
                let pages = self.pages_in_log.load(Ordering::Relaxed);
                self.checkpoints.after_commit(&self.connection, pages);
            }
        }
        Ended { connection: self.connection, lock: self.lock }
    }

    /// Takes the write lock, for as long as the most patient of the batch waits for it. False when
    /// nobody is left to work for.
    fn begin(&self, batch: &mut Vec<Box<dyn Job>>) -> bool {
        loop {
            let now = SystemClock.boot();
            for overdue in batch.extract_if(.., |job| job.deadline() <= now) {
                overdue.refuse(errors::busy("waited for as long as the busy policy allows"));
            }
            let Some(first) = batch.iter().map(|job| job.deadline()).min() else {
                return false;
            };
            match self.try_begin(first.since(now)) {
                Ok(()) => return true,
                Err(error) if errors::is_busy(&error) => std::thread::sleep(PAUSE),
                Err(error) => {
                    answer(batch, Some(&SharedError::new(error)));
                    return false;
                }
            }
        }
    }

    fn try_begin(&self, patience: Duration) -> rusqlite::Result<()> {
        self.connection.busy_timeout(patience.max(PAUSE))?;
        execute(&self.connection, statements::BEGIN)
    }

    fn finish(&self, batch: &mut Vec<Box<dyn Job>>) {
        let loss = run_all(&self.connection, batch)
            .and_then(|()| execute(&self.connection, statements::COMMIT).map_err(SharedError::new))
            .err();
        if loss.is_some()
            && !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, statements::ROLLBACK)
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
        answer(batch, loss.as_ref());
    }
}

/// Runs every closure in a savepoint of its own. Fails if SQLite gave up the whole transaction, as
/// it does when the disk is full.
fn run_all(connection: &Connection, batch: &mut [Box<dyn Job>]) -> Result<(), SharedError> {
    for job in batch {
        execute(connection, statements::SAVEPOINT).map_err(SharedError::new)?;
        if let Err(error) = job.run(connection) {
            if connection.is_autocommit() {
                return Err(error);
            }
            execute(connection, statements::ROLLBACK_TO).map_err(SharedError::new)?;
        }
        execute(connection, statements::RELEASE).map_err(SharedError::new)?;
    }
    Ok(())
}

fn answer(batch: &mut Vec<Box<dyn Job>>, loss: Option<&SharedError>) {
    for job in batch.drain(..) {
        job.answer(loss);
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
