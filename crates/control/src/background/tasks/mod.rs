//! The list of background tasks.

mod drive;
mod purge;
mod reap;
mod reconcile;
mod tidy;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use types::Fault;

use super::Next;
use crate::control::Inner;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Reap,
    Drive,
    Purge,
    Reconcile,
    Watch,
    Tidy,
}

impl Task {
    pub const ALL: [Self; 6] =
        [Self::Reap, Self::Drive, Self::Purge, Self::Reconcile, Self::Watch, Self::Tidy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reap => "reap",
            Self::Drive => "drive",
            Self::Purge => "purge",
            Self::Reconcile => "reconcile",
            Self::Watch => "watch",
            Self::Tidy => "tidy",
        }
    }

    /// How long it rests between runs.
    pub fn every(self) -> Duration {
        match self {
            // From expiry to destruction it takes under two seconds.
            Self::Reap => Duration::from_millis(500),
            Self::Drive => Duration::from_secs(1),
            Self::Purge => Duration::from_secs(60),
            Self::Reconcile => Duration::from_secs(30),
            Self::Watch => Duration::from_secs(5),
            Self::Tidy => Duration::from_secs(60),
        }
    }

    pub async fn run(self, inner: &Arc<Inner>) -> Result<Next, Fault> {
        match self {
            Self::Reap => reap::run(inner).await,
            Self::Drive => drive::run(inner).await,
            Self::Purge => purge::run(inner).await,
            Self::Reconcile => reconcile::run(inner).await,
            Self::Watch => watch::run(inner).await,
            Self::Tidy => tidy::run(inner).await,
        }
    }
}
