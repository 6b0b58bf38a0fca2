//! How failures below become faults that clients may read, and the deadline around every wait.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use store::StoreError;
use types::{ErrorCode, Fault, Sandbox, SandboxId};

/// Longest piece of a caller's own text that a message repeats.
const SHOWN: usize = 64;

/// Says what the store's trouble means to a caller. What the database said stays private.
pub(crate) fn store_fault(error: StoreError) -> Fault {
    match &error {
        StoreError::Busy(_) => Fault::unavailable("the database is locked or busy; retry"),
        StoreError::Full(_) => {
            Fault::unavailable("the database is out of disk space; make room and retry")
        }
        StoreError::Foreign(_) => Fault::internal("the database cannot be used"),
        StoreError::Broken(_) => Fault::internal("the database failed"),
    }
    .caused_by(error)
}

/// No such sandbox, as far as this caller may know.
pub(crate) fn unknown(id: &SandboxId) -> Fault {
    Fault::not_found(format!("sandbox {id} not found"))
}

/// It was there and is no more.
pub(crate) fn ended(sandbox: &Sandbox) -> Fault {
    let how = sandbox.ended_reason.unwrap_or(types::EndedReason::Destroyed);
    Fault::not_found(format!("sandbox {} {}", sandbox.id, how.in_words()))
}

pub(crate) fn limit(message: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::ResourceLimit, message)
}

/// A caller's own word, fit to be repeated to it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// Waits for a worker, but not for ever. `what` reads "<what> did not finish within …".
pub(crate) async fn within<T>(
    deadline: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::unavailable(format!(
            "{what} did not finish within {}",
            types::duration::format(deadline)
        ))),
    }
}

/// The whole story for the log: a message and its private causes.
pub(crate) fn chain(fault: &Fault) -> String {
    let mut text = format!("{}: {fault}", fault.code);
    let mut cause = fault.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
