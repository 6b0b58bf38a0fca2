//! The one home of the clocks. Everything else is handed a [`Clock`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Timestamp;

/// Time since the host started, suspend included (CLOCK_BOOTTIME). Leases and ttls count on it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub fn nanos(self) -> u64 {
        self.0
    }

    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to `self`; zero if that is not in the past.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What time it is.
pub trait Clock: Send + Sync {
    fn wall(&self) -> Timestamp;
    fn boot(&self) -> BootTime;
}

pub type SharedClock = Arc<dyn Clock>;

/// The kernel's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp::from_unix_nanos(i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec))
    }

    fn boot(&self) -> BootTime {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(t.tv_sec).unwrap_or(0);
        BootTime(secs * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
    }
}

/// A clock that stands until it is moved; for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, BootTime)>);

impl ManualClock {
    pub fn new(wall: Timestamp) -> Self {
        Self(Mutex::new((wall, BootTime(1_000_000_000))))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *now = (now.0.saturating_add(by), now.1.saturating_add(by));
    }

    /// Sets wall time alone, as an administrator or NTP would.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).0
    }

    fn boot(&self) -> BootTime {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).1
    }
}
