//! The threads that read, each on a connection that cannot write.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::mpsc;
use types::clock::{Clock, SystemClock};

use super::errors;
use super::job::{Job, Message};

/// One lane for all readers: who is free takes the next, so that a long list holds up nobody.
pub(super) type Inbox = Arc<Mutex<mpsc::Receiver<Message>>>;

pub(super) fn run(connection: &Connection, inbox: &Inbox) {
    while let Some(mut job) = next(inbox) {
        if job.deadline() <= SystemClock.boot() {
            job.refuse(errors::busy("waited for as long as the busy policy allows"));
            continue;
        }
        // Outside a transaction every statement sees all that was committed before it; the error,
        // if there is one, is part of the answer.
        let _ = job.run(connection);
        job.answer(None);
    }
}

fn next(inbox: &Inbox) -> Option<Box<dyn Job>> {
    let mut lane = inbox.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match lane.blocking_recv()? {
            Message::Job(job) => return Some(job),
            Message::Close => lane.close(),
        }
    }
}
