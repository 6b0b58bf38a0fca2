//! Runs the tasks: each in a loop of its own, so that a slow one holds up no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use types::{Fault, Timestamp};

use super::tasks::Task;
use crate::Control;
use crate::control::Inner;
use crate::fault::chain;

/// When a task wants to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// At its own pace.
    Later,
    /// There is more to do.
    AtOnce,
    /// Sooner than usual.
    Soon(Duration),
}

/// The last run of a background task, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRun {
    pub name: &'static str,
    pub finished_at: Timestamp,
    pub took: Duration,
    pub runs: u64,
    pub failures: u64,
    /// How the last run failed, fit for callers; `None` if it did not.
    pub error: Option<String>,
}

#[derive(Default)]
pub(crate) struct Background {
    runs: Mutex<BTreeMap<&'static str, TaskRun>>,
    drive: Notify,
}

impl Background {
    /// There is something to drive to its end.
    pub fn wake_drive(&self) {
        self.drive.notify_one();
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<&'static str, TaskRun>> {
        self.runs.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn note(&self, task: Task, finished_at: Timestamp, took: Duration, error: Option<String>) {
        let mut runs = self.runs();
        let last = runs.get(task.name());
        let run = TaskRun {
            name: task.name(),
            finished_at,
            took,
            runs: last.map_or(0, |l| l.runs) + 1,
            failures: last.map_or(0, |l| l.failures) + u64::from(error.is_some()),
            error,
        };
        runs.insert(task.name(), run);
    }
}

impl Control {
    /// The last run of each background task that has run, by name.
    pub fn tasks(&self) -> Vec<TaskRun> {
        self.0.background.runs().values().cloned().collect()
    }
}

/// Starts every task; they end when control stops.
pub(crate) fn drive_tasks(inner: &Arc<Inner>) {
    for task in Task::ALL {
        inner.tracker.spawn(repeat(inner.clone(), task));
    }
}

async fn repeat(inner: Arc<Inner>, task: Task) {
    loop {
        let run = run_once(&inner, task);
        // Every task may be dropped at any await: the next run, or the next start, goes on.
        let next = tokio::select! {
            () = inner.stopping.cancelled() => return,
            next = run => next,
        };
        let pause = match next {
            Next::AtOnce => Duration::ZERO,
            Next::Later => task.every(),
            Next::Soon(pause) => pause,
        };
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = woken(&inner, task) => {}
        }
    }
}

async fn run_once(inner: &Arc<Inner>, task: Task) -> Next {
    let began = inner.clock.boot();
    let result: Result<Next, Fault> = task.run(inner).await;
    let took = inner.clock.boot().since(began);
    let (next, error) = match result {
        Ok(next) => (next, None),
        Err(fault) => {
            tracing::warn!(task = task.name(), error = chain(&fault), "background task failed");
            (Next::Later, Some(fault.message))
        }
    };
    inner.background.note(task, inner.clock.wall(), took, error);
    next
}

async fn woken(inner: &Inner, task: Task) {
    match task {
        Task::Drive => inner.background.drive.notified().await,
        Task::Reap | Task::Purge | Task::Reconcile | Task::Watch | Task::Tidy => {
            std::future::pending().await
        }
    }
}
