//! Waiting for something to become true, without guessing how long it takes.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Small against what is waited for, large against what asking costs.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again and again until the answer is `Ok`, and returns what is in it.
///
/// # Panics
/// When `deadline` has passed; the message has the last thing that was seen.
pub async fn wait_for<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= end => {
                panic!("waited {deadline:?} for {what}; last seen: {seen}")
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
