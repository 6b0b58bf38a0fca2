//! Spawn: judge, find a place, hand the making over, and wait for it.
//!
//! The making is a task of its own ([`super::making`]): a caller that goes away at any moment
//! leaves nothing half done. Nothing here is serialised (BUG-5).

use store::Earlier;
use tokio::sync::oneshot;
use types::{Fault, Sandbox};

use super::SpawnInput;
use super::making::{Made, make};
use crate::admission::{Wish, check_ttl, no_place};
use crate::placement::Demand;
use crate::{Context, Control};

impl Control {
    /// Makes a sandbox; it is usable when this returns.
    pub async fn spawn(&self, ctx: &Context, input: SpawnInput) -> Result<Sandbox, Fault> {
        self.obtain(ctx, input).await.map(|obtained| obtained.sandbox)
    }

    /// `Err` within: an earlier spawn is the answer.
    pub(super) async fn spawn_once(
        &self,
        wish: Wish,
    ) -> Result<Result<Sandbox, Box<Earlier>>, Fault> {
        let inner = &self.0;
        wish.check_provider()?;
        check_ttl(&inner.config.defaults, wish.ttl)?;
        let demand = Demand { provider: &wish.provider, local: &inner.config.local_worker };
        let seat = inner
            .workers
            .place(demand, &inner.links)
            .map_err(|why| no_place(why, &wish.provider))?;
        let (answer, answered) = oneshot::channel();
        inner.tracker.spawn(make(inner.clone(), wish, seat, answer));
        match answered.await {
            Ok(Ok(Made::New(unclaimed))) => Ok(Ok(unclaimed.claim())),
            Ok(Ok(Made::Earlier(earlier))) => Ok(Err(earlier)),
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::internal("the spawn was interrupted")),
        }
    }
}
