//! A point in wall time, to the nanosecond, always UTC.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Wall time: for records and for people. Never compare it to decide that time has passed on one
/// machine; that is what [`crate::clock::BootTime`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i128);

impl Timestamp {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn from_unix_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    pub fn unix_nanos(self) -> i128 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down. What the store keeps in an index.
    pub fn unix_millis(self) -> i64 {
        i64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// RFC 3339 text with an offset; `None` if it is not.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(|t| Self(t.unix_timestamp_nanos()))
    }

    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i128::try_from(by.as_nanos()).unwrap_or(i128::MAX)))
    }

    /// The time from `earlier` to `self`; zero if that is not in the past.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = u64::try_from(self.0.saturating_sub(earlier.0).max(0)).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos)
    }

    /// The same instant without its fraction of a second.
    pub fn whole_seconds(self) -> Self {
        Self(self.0.div_euclid(1_000_000_000) * 1_000_000_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(self.0)
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("9999-12-31T23:59:59Z"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_utc() {
        let t = Timestamp::parse("2026-02-01T10:00:00.123456789+02:00").unwrap();
        assert_eq!(t.to_string(), "2026-02-01T08:00:00.123456789Z");
        assert_eq!(t.whole_seconds().to_string(), "2026-02-01T08:00:00Z");
        assert_eq!(t.since(t.saturating_add(Duration::from_secs(1))), Duration::ZERO);
    }
}
