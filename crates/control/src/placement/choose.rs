//! The choice itself.

use types::WorkerId;

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand<'a> {
    pub provider: &'a str,
    /// Wins among equals: nothing crosses a network without gain.
    pub local: &'a WorkerId,
}

/// A worker as placement sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub id: &'a WorkerId,
    /// Its status is `online` (not draining, not anything else).
    pub online: bool,
    /// Its heartbeat is not stale.
    pub fresh: bool,
    /// There is a way to it.
    pub reachable: bool,
    /// `None` or empty: any.
    pub providers: Option<&'a [String]>,
    pub active: u64,
    /// 0: no bound of its own.
    pub max_sandboxes: u64,
}

/// Why nobody can take it; the closest miss of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NoPlace {
    NoWorker,
    NoProvider,
    AllFull,
}

/// The emptiest eligible worker; among equals the local one, then the lowest id.
pub(crate) fn choose<'a>(
    demand: Demand<'_>,
    views: impl IntoIterator<Item = View<'a>>,
) -> Result<&'a WorkerId, NoPlace> {
    let mut best: Option<(u64, bool, &WorkerId)> = None;
    let mut miss = NoPlace::NoWorker;
    for view in views {
        if !(view.online && view.fresh && view.reachable) {
            continue;
        }
        if !view.offers(demand.provider) {
            miss = miss.max(NoPlace::NoProvider);
            continue;
        }
        if view.max_sandboxes != 0 && view.active >= view.max_sandboxes {
            miss = miss.max(NoPlace::AllFull);
            continue;
        }
        let rank = (view.active, view.id != demand.local, view.id);
        if best.is_none_or(|b| rank < b) {
            best = Some(rank);
        }
    }
    best.map(|(_, _, id)| id).ok_or(miss)
}

impl View<'_> {
    fn offers(&self, provider: &str) -> bool {
        match self.providers {
            None | Some([]) => true,
            Some(names) => names.iter().any(|n| n.eq_ignore_ascii_case(provider)),
        }
    }
}
