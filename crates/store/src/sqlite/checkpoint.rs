//! Keeps the write-ahead log short without making a commit wait for the disk.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::errors;

/// Pages (4 KiB) in the log from which the checkpointer moves them into the database. 16 MiB: at
/// SQLite's own default of 1,000 the disk is busy with it all the time under load, and one commit
/// in a hundred waits milliseconds for it; far beyond, reading through the log becomes slow.
const SOFT: u32 = 4_000;

/// From here on the writer does it itself: while it does, nobody appends, so that the log can start
/// over. 64 MiB.
const HARD: u32 = 4 * SOFT;

/// Bytes that the log keeps on disk when it starts over: all that it ordinarily has, since cutting
/// it off and growing it again costs more than it frees.
pub(super) const LOG_KEPT: i64 = HARD as i64 * 4096;

/// The writer's side: decides after each commit.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    turn: Turn,
    next_own: u32,
}

/// The checkpointer's side.
pub(super) struct Checkpointer {
    connection: Connection,
    woken: Receiver<()>,
    turn: Turn,
}

/// Held while a checkpoint runs. SQLite would turn the second one away, and a writer that is turned
/// away each time lets the log grow without end.
type Turn = Arc<Mutex<()>>;

/// `connection`: the checkpointer's own.
pub(super) fn pair(connection: Connection) -> (Checkpoints, Checkpointer) {
    let (wake, woken) = sync_channel(1);
    let turn = Turn::default();
    let checkpointer = Checkpointer { connection, woken, turn: Arc::clone(&turn) };
    (Checkpoints { wake, turn, next_own: HARD }, checkpointer)
}

impl Checkpoints {
    pub(super) fn after_commit(&mut self, connection: &Connection, pages: u32) {
        if pages < SOFT {
            self.next_own = HARD;
        } else if pages >= self.next_own {
            run(connection, &self.turn);
            // A reader that holds an old snapshot may keep the log from starting over; then it is
            // no use to try again at every commit.
            self.next_own = pages.saturating_add(SOFT);
        } else {
            // Full: it is awake already.
            let _ = self.wake.try_send(());
        }
    }
}

impl Checkpointer {
    /// Until the writer is gone.
    pub(super) fn run(self) {
        while self.woken.recv().is_ok() {
            run(&self.connection, &self.turn);
        }
    }
}

/// Moves what no reader needs any more; waits for nobody but another one like it.
fn run(connection: &Connection, turn: &Turn) {
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    match done {
        Ok(()) => {}
        Err(error) if errors::is_busy(&error) => {}
        // Nothing is lost: the log keeps what could not be moved, and the next commit that finds
        // no room for itself tells its caller.
        Err(error) => tracing::warn!(%error, "the database log could not be moved on"),
    }
}
