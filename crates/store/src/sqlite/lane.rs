//! The bounded way from async callers to database threads.

use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use types::clock::{Clock, SystemClock};

use super::errors;
use super::job::{Message, Pending};
use crate::StoreError;

/// How much longer than the busy policy an answer is waited for. The threads keep to the policy by
/// themselves; only a disk that hangs in the kernel gets here.
const HANGS: Duration = Duration::from_secs(30);

pub(super) struct Lane {
    sender: mpsc::Sender<Message>,
    /// The busy policy: how long to wait for room in the queue, and how long in it.
    patience: Duration,
}

impl Lane {
    pub(super) fn new(capacity: usize, patience: Duration) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self { sender, patience }, receiver)
    }

    /// Runs `work` on a thread of this lane. Once it is in the queue it is done, or refused, also
    /// when the caller goes away.
    pub(super) async fn ask<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask_then(work, |_| {}).await
    }

    /// As [`Lane::ask`]; `after` sees the result on that thread, once it is committed and before
    /// it is answered, in the order of the commits.
    pub(super) async fn ask_then<T, F, A>(&self, work: F, after: A) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // The process's own clock on purpose: this is waiting, not a time that is remembered.
        let deadline = SystemClock.boot().saturating_add(self.patience);
        let message = Message::Job(Box::new(Pending::new(work, after, deadline, answer)));
        match timeout(self.patience, self.sender.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(errors::busy("the store is closed")),
            Err(_) => return Err(errors::busy("the queue stayed full")),
        }
        match timeout(self.patience + HANGS, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Broken("a database thread has ended".into())),
            Err(_) => Err(StoreError::Broken("a database thread hangs".into())),
        }
    }

    /// Lets the threads finish what is queued and end.
    pub(super) async fn close(&self) {
        // Fails only where the threads have ended already.
        let _ = self.sender.send(Message::Close).await;
    }
}
