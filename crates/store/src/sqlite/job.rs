//! A closure on its way to a database thread, and the answer on its way back.

use rusqlite::Connection;
use tokio::sync::oneshot;
use types::clock::BootTime;

use super::errors::{self, SharedError};
use crate::StoreError;

/// What a thread does with a piece of work, whatever its result type is.
pub(super) trait Job: Send {
    /// Not begun by then, it is answered `Busy`.
    fn deadline(&self) -> BootTime;

    /// Runs the closure and keeps its result. An error says that its changes are not to be kept.
    fn run(&mut self, connection: &Connection) -> Result<(), SharedError>;

    /// Answers with the result, unless what was done is lost for `loss`.
    fn answer(self: Box<Self>, loss: Option<&SharedError>);

    /// Answers that it was not run.
    fn refuse(self: Box<Self>, error: StoreError);
}

/// What travels in a lane.
pub(super) enum Message {
    Job(Box<dyn Job>),
    /// Accept nothing more, finish what is there, end.
    Close,
}

pub(super) struct Pending<T, F, A> {
    work: Option<F>,
    after: A,
    result: Option<Result<T, SharedError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
    deadline: BootTime,
}

impl<T, F, A> Pending<T, F, A>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    A: FnOnce(&T) + Send,
{
    /// `after` sees the result once it is stored, before the caller does.
    pub(super) fn new(
        work: F,
        after: A,
        deadline: BootTime,
        answer: oneshot::Sender<Result<T, StoreError>>,
    ) -> Self {
        Self { work: Some(work), after, result: None, answer, deadline }
    }
}

impl<T, F, A> Job for Pending<T, F, A>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    A: FnOnce(&T) + Send,
{
    fn deadline(&self) -> BootTime {
        self.deadline
    }

    fn run(&mut self, connection: &Connection) -> Result<(), SharedError> {
        let work = self.work.take().expect("a job runs once");
        let result = work(connection).map_err(SharedError::new);
        let verdict = result.as_ref().map(|_| ()).map_err(SharedError::clone);
        self.result = Some(result);
        verdict
    }

    fn answer(self: Box<Self>, loss: Option<&SharedError>) {
        let answer = match (self.result, loss) {
            (Some(Err(own)), _) => Err(errors::from_sqlite(own)),
            (_, Some(loss)) => Err(errors::from_sqlite(loss.clone())),
            (Some(Ok(value)), None) => {
                (self.after)(&value);
                Ok(value)
            }
            (None, None) => Err(errors::busy("the work was not begun")),
        };
        // A caller that went away does not want to know; the work is done all the same.
        let _ = self.answer.send(answer);
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.answer.send(Err(error));
    }
}
