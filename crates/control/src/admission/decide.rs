//! The answer of `POST /sandboxes/admission`, and the words in which a spawn is refused.

use store::Counts;
use types::Fault;
use types::api::Admission;

use super::Wish;
use super::demand::check_ttl;
use crate::fault::{limit, store_fault};
use crate::placement::{Demand, NoPlace};
use crate::sandboxes::SpawnInput;
use crate::{Context, Control};

impl Control {
    /// Says whether a spawn would be let in now, by the same rules in the same order.
    pub async fn admission(&self, ctx: &Context, input: SpawnInput) -> Result<Admission, Fault> {
        let inner = &self.0;
        let wish = Wish::resolve(inner, ctx, input)?;
        let limits = wish.limits(inner);
        let counts = inner.store.counts(wish.owner.clone()).await.map_err(store_fault)?;
        let demand = Demand { provider: &wish.provider, local: &inner.config.local_worker };
        let defaults = &inner.config.defaults;
        let reason = if check_ttl(defaults, wish.ttl).is_err() {
            Some("max_ttl")
        } else if inner.workers.has_place(demand, &inner.links).is_err()
            || wish.check_provider().is_err()
        {
            Some("worker_unavailable")
        } else if reached(limits.max_sandboxes, counts.total) {
            Some("max_sandboxes")
        } else if wish.owner.is_some() && reached(limits.max_per_owner, counts.owner) {
            Some("max_sandboxes_per_owner")
        } else {
            None
        };
        let bound = |max: u64| (max != 0).then_some(max);
        Ok(Admission {
            allowed: reason.is_none(),
            queueable: false,
            reason: reason.map(str::to_owned),
            active_sandboxes: counts.total,
            max_sandboxes: limits.max_sandboxes,
            active_owner_sandboxes: wish.owner.is_some().then_some(counts.owner),
            max_owner_sandboxes: wish
                .owner
                .is_some()
                .then(|| bound(limits.max_per_owner))
                .flatten(),
            max_ttl: (!defaults.max_ttl.is_zero())
                .then(|| types::duration::format(defaults.max_ttl)),
        })
    }
}

fn reached(max: u64, active: u64) -> bool {
    max != 0 && active >= max
}

pub(crate) fn no_place(why: NoPlace, provider: &str) -> Fault {
    let provider = crate::fault::shown(provider);
    match why {
        NoPlace::NoWorker => limit("no worker can take a sandbox now; retry in 30 seconds"),
        NoPlace::NoProvider => limit(format!("no worker offers provider {provider} now")),
        NoPlace::AllFull => limit("every worker is full; destroy a sandbox or retry later"),
    }
}

pub(crate) fn full(max: u64, counts: Counts) -> Fault {
    limit(format!("max_sandboxes ({max}) is reached: {} are there", counts.total))
}

pub(crate) fn owner_full(max: u64, counts: Counts) -> Fault {
    limit(format!("max_sandboxes_per_owner ({max}) is reached: the owner has {}", counts.owner))
}
