//! Lists of sandboxes, by what callers see of them.

use store::ListFilter;
use types::{Fault, Sandbox, SandboxId, SandboxState, Timestamp};

use crate::fault::store_fault;
use crate::records::may_see;
use crate::{Context, Control};

/// Rows read in one go.
const BATCH: u32 = 500;
/// Expired ones that are looked at: they last for moments, and this is far more than there are.
const MOST_DUE: u32 = 100_000;

/// Which sandboxes are meant. All that is said has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// As callers see it; `None`: all but `Destroyed`.
    pub state: Option<SandboxState>,
    pub provider: Option<String>,
    /// Entries of its metadata.
    pub labels: Vec<(String, String)>,
}

impl Control {
    /// Sandboxes after `after`, at most `limit` of them, newest first and by id among equals.
    pub async fn find(
        &self,
        ctx: &Context,
        finding: &Finding,
        after: Option<(Timestamp, SandboxId)>,
        limit: Option<u32>,
    ) -> Result<Vec<Sandbox>, Fault> {
        let enough = limit.map_or(usize::MAX, |limit| limit as usize);
        if finding.state == Some(SandboxState::Expired) {
            return self.expired_ones(ctx, finding, after, enough).await;
        }
        let inner = &self.0;
        let mut filter = ListFilter {
            tenant: ctx.tenant.clone(),
            provider: finding.provider.clone(),
            states: finding.state.map_or_else(Vec::new, stored),
            labels: finding.labels.clone(),
            after,
            // Without a bound, or where every row that is read is one that is meant.
            limit: limit.map(|l| if finding.state.is_some() { l.max(BATCH) } else { l }),
        };
        let mut found = Vec::new();
        loop {
            let rows = inner.store.sandboxes(filter.clone()).await.map_err(store_fault)?;
            let last = filter.limit.is_none_or(|limit| rows.len() < limit as usize);
            filter.after = rows.last().map(|row| (row.created_at, row.id.clone()));
            let shown = rows.into_iter().map(|row| inner.shown(row));
            found.extend(shown.filter(|s| finding.state.is_none_or(|state| s.state == state)));
            if last || found.len() >= enough {
                found.truncate(enough);
                return Ok(found);
            }
        }
    }

    /// Those whose time is up and that the reaper has not met yet.
    async fn expired_ones(
        &self,
        ctx: &Context,
        finding: &Finding,
        after: Option<(Timestamp, SandboxId)>,
        enough: usize,
    ) -> Result<Vec<Sandbox>, Fault> {
        let inner = &self.0;
        let due = inner.store.due_sandboxes(inner.due_by(), MOST_DUE).await;
        let rest = ListFilter {
            provider: finding.provider.clone(),
            labels: finding.labels.clone(),
            ..ListFilter::default()
        };
        let beyond = |s: &Sandbox| match &after {
            None => true,
            Some((time, id)) => s.created_at < *time || (s.created_at == *time && s.id > *id),
        };
        let mut found: Vec<_> = due
            .map_err(store_fault)?
            .into_iter()
            .filter(|s| may_see(ctx, s) && rest.lets_through(s) && beyond(s))
            .map(|s| inner.shown(s))
            .filter(|s| s.state == SandboxState::Expired)
            .collect();
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        found.truncate(enough);
        Ok(found)
    }
}

/// The states that may be stored of those that callers see in `state`.
fn stored(state: SandboxState) -> Vec<SandboxState> {
    match state {
        SandboxState::Running | SandboxState::Unhealthy => {
            vec![SandboxState::Running, SandboxState::Unhealthy]
        }
        SandboxState::Creating
        | SandboxState::Expired
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Error => vec![state],
    }
}
