//! How old a heartbeat may be.

use std::time::Duration;

use store::WorkerRecord;

/// Where a worker does not say how often it reports: stale after two minutes, as three of these.
const UNSAID: Duration = Duration::from_secs(40);
/// An announced interval is taken within these bounds, or a worker could call itself fresh for
/// ever, or stale at each hiccup.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    /// Gets no new sandboxes.
    Stale,
    /// Its sandboxes count as unhealthy.
    Offline,
}

/// `age`: since its last heartbeat, in time that no administrator can turn.
pub(crate) fn freshness(record: &WorkerRecord, age: Duration) -> Freshness {
    let every = announced(record).map_or(UNSAID, |i| i.clamp(SHORTEST, LONGEST));
    if age > every * 10 {
        Freshness::Offline
    } else if age > every * 3 {
        Freshness::Stale
    } else {
        Freshness::Fresh
    }
}

/// The interval in `capacity.heartbeat_interval`, a duration as text.
fn announced(record: &WorkerRecord) -> Option<Duration> {
    let text = record.capacity.as_ref()?.get("heartbeat_interval")?.as_str()?;
    types::duration::parse_unsigned(text).ok()
}
