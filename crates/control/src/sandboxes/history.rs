//! Records of plain commands, which belong to their callers: written behind their backs, in
//! batches, so that none waits for a commit. A crash loses those of the last moments.
//!
//! A command with an id that can be asked for again is recorded before it starts (`recorded`).

use std::collections::HashMap;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as Waking, Poll};
use std::time::Duration;

use futures_util::Stream;
use protocol::worker::{ExecEvent, ExecExit, ExecStream};
use store::{CANCELLED, ExecEnd, ExecRecord, LOST};
use tokio::sync::{Mutex as Turn, Notify};
use types::{ExecId, Fault};

use crate::control::Inner;
use crate::fault::{chain, store_fault};

/// Between two writes: what starts and ends in between is one row, and what a crash loses is no
/// older.
const PAUSE: Duration = Duration::from_millis(250);
/// After a write that failed.
const REST: Duration = Duration::from_secs(1);
/// Records that wait to be written; the commands that start above it are counted, not recorded.
const WAITING: usize = 8192;
/// Records in one piece of the writer's work: spawns wait behind it, a millisecond or so.
const PIECE: usize = 64;

/// What is known of plain commands and not stored yet.
#[derive(Default)]
pub(crate) struct History {
    waiting: Mutex<HashMap<ExecId, ExecRecord>>,
    more: Notify,
    /// One writes at a time, so that whoever waited for it finds all that was known before.
    turn: Turn<()>,
    missed: AtomicU64,
    /// The server goes, and commands run on without it.
    leaving: AtomicBool,
}

impl History {
    fn waiting(&self) -> MutexGuard<'_, HashMap<ExecId, ExecRecord>> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// From now on a command whose output nobody takes any more is not one that was cancelled.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// A command that was not known before. `false`: there is no room.
    fn begin(&self, record: ExecRecord) -> bool {
        let mut waiting = self.waiting();
        let room = waiting.len() < WAITING;
        if room {
            waiting.insert(record.exec_id.clone(), record);
            drop(waiting);
            self.more.notify_one();
        } else {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// One that is known has ended. There are no more of these than of commands that run.
    fn end(&self, record: ExecRecord) {
        self.waiting().insert(record.exec_id.clone(), record);
        self.more.notify_one();
    }

    /// Stores all that is known by now.
    pub(crate) async fn write(&self, inner: &Inner) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        let mut records: Vec<_> = mem::take(&mut *self.waiting()).into_values().collect();
        let keep = inner.config.history.per_sandbox;
        while !records.is_empty() {
            let piece = records.split_off(records.len().saturating_sub(PIECE));
            if let Err(error) = inner.store.record_execs(piece.clone(), keep).await {
                let mut waiting = self.waiting();
                for record in records.into_iter().chain(piece) {
                    // What came meanwhile is newer.
                    waiting.entry(record.exec_id.clone()).or_insert(record);
                }
                return Err(store_fault(error));
            }
        }
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => {}
            missed => tracing::warn!(missed, "commands came too fast for the history to keep them"),
        }
        Ok(())
    }
}

impl Inner {
    /// So that whoever looks finds what was answered before. Without it he finds less.
    pub(super) async fn told(&self) {
        if let Err(fault) = self.history.write(self).await {
            tracing::warn!(error = chain(&fault), "the history of commands is not stored yet");
        }
    }
}

/// Writes what comes, until the control plane stops.
pub(crate) fn keep_history(inner: &Arc<Inner>) {
    let (stopping, inner) = (inner.stopping.clone(), Arc::clone(inner));
    let tracker = inner.tracker.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = write_on(&inner) => {}
        }
    });
}

async fn write_on(inner: &Inner) {
    loop {
        inner.history.more.notified().await;
        tokio::time::sleep(PAUSE).await;
        if let Err(fault) = inner.history.write(inner).await {
            tracing::warn!(error = chain(&fault), "the history of commands is not stored yet");
            tokio::time::sleep(REST).await;
            inner.history.more.notify_one();
        }
    }
}

/// The record of a plain command, from before its start until its end. Dropped before that, the
/// command is cancelled.
pub(super) struct Note {
    inner: Arc<Inner>,
    /// `None`: its end is told, or it is not recorded.
    record: Option<Box<ExecRecord>>,
}

impl Note {
    pub fn new(inner: &Arc<Inner>, record: ExecRecord) -> Self {
        Self { inner: Arc::clone(inner), record: Some(Box::new(record)) }
    }

    pub fn started(&mut self) {
        let Some(record) = &mut self.record else { return };
        record.started_at = Some(self.inner.clock.wall());
        if !self.inner.history.begin(ExecRecord::clone(record)) {
            self.record = None;
        }
    }

    /// It never ran.
    pub fn refused(mut self) {
        self.record = None;
    }

    /// Nobody will hear how it ends.
    pub fn lost(&mut self) {
        self.over(nobody_knows(LOST));
    }

    /// Sees how it ends.
    pub fn follow(self, events: ExecStream) -> ExecStream {
        Box::pin(Noted { events, note: self })
    }

    fn over(&mut self, end: impl FnOnce(&Inner) -> ExecEnd) {
        let Some(mut record) = self.record.take() else { return };
        record.end = Some(end(&self.inner));
        if record.started_at.is_some() {
            self.inner.history.end(*record);
        } else {
            self.inner.history.begin(*record);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // The next server looks for what runs.
        if !self.inner.history.leaving.load(Ordering::Relaxed) {
            self.over(nobody_knows(CANCELLED));
        }
    }
}

/// The output of a command, and the record of it.
struct Noted {
    events: ExecStream,
    note: Note,
}

impl Stream for Noted {
    type Item = Result<ExecEvent, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Waking<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.as_mut().poll_next(cx);
        match &next {
            Poll::Ready(Some(Ok(ExecEvent::Exit(exit)))) => self.note.over(ended(exit)),
            Poll::Ready(None | Some(Err(_))) => {
                if !self.note.inner.history.leaving.load(Ordering::Relaxed) {
                    self.note.lost();
                }
            }
            Poll::Ready(Some(Ok(
                ExecEvent::Output { .. } | ExecEvent::Gap { .. } | ExecEvent::Paused,
            )))
            | Poll::Pending => {}
        }
        next
    }
}

fn ended(exit: &ExecExit) -> impl FnOnce(&Inner) -> ExecEnd {
    |inner| end_of(inner, exit)
}

/// How a command ended that somebody saw end.
pub(super) fn end_of(inner: &Inner, exit: &ExecExit) -> ExecEnd {
    ExecEnd {
        at: inner.clock.wall(),
        exit_code: Some(exit.exit_code),
        signal: exit.signal,
        timed_out: exit.timed_out,
        oom_killed: exit.oom_killed,
        lost: None,
    }
}

fn nobody_knows(why: &'static str) -> impl FnOnce(&Inner) -> ExecEnd {
    move |inner| lost_for(inner, why)
}

/// The end of a command that nobody saw.
pub(super) fn lost_for(inner: &Inner, why: &str) -> ExecEnd {
    ExecEnd {
        at: inner.clock.wall(),
        exit_code: None,
        signal: 0,
        timed_out: false,
        oom_killed: false,
        lost: Some(why.to_owned()),
    }
}
