//! Providers as the workers report them, and whether the whole is ready.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use protocol::worker::ProviderReport;
use types::Fault;

use crate::Control;
use crate::fault::{chain, shown, store_fault, within};

/// A fresh probe asks each backend.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// `/ready` answers within two seconds.
const READY_DEADLINE: Duration = Duration::from_millis(1500);

/// Whether requests can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    pub ready: bool,
    pub providers: Vec<ProviderReport>,
}

impl Control {
    /// Every provider, by name. On several workers: healthy if it is on one of them.
    pub async fn providers(&self, fresh: bool) -> Result<Vec<ProviderReport>, Fault> {
        self.reports(fresh, PROBE_DEADLINE).await
    }

    /// One provider, and how many sandboxes it has.
    pub async fn provider(&self, name: &str) -> Result<(ProviderReport, u64), Fault> {
        let all = self.providers(false).await?;
        let found = all.into_iter().find(|p| p.name.eq_ignore_ascii_case(name));
        let report =
            found.ok_or_else(|| Fault::not_found(format!("provider {} not found", shown(name))))?;
        let count = self.0.store.count_by_provider(report.name.clone()).await;
        Ok((report, count.map_err(store_fault)?))
    }

    /// Adopted, a healthy provider, a store that works.
    pub async fn readiness(&self) -> Readiness {
        let adopted = *self.0.adopted.borrow() && self.0.links.all_adopted();
        let store = tokio::time::timeout(READY_DEADLINE, self.0.store.check());
        let (providers, store) = tokio::join!(self.reports(false, READY_DEADLINE), store);
        let providers = providers.unwrap_or_default();
        let healthy = providers.iter().any(|p| p.healthy);
        Readiness { ready: adopted && healthy && matches!(store, Ok(Ok(()))), providers }
    }

    async fn reports(&self, fresh: bool, deadline: Duration) -> Result<Vec<ProviderReport>, Fault> {
        let links = self.0.links.all();
        let asked = links.iter().map(|(id, link)| async move {
            (id, within(deadline, "asking for providers", link.providers(fresh)).await)
        });
        let mut merged: BTreeMap<String, ProviderReport> = BTreeMap::new();
        let mut failed = None;
        let mut answered = false;
        for (worker, answer) in join_all(asked).await {
            match answer {
                Ok(reports) => {
                    answered = true;
                    for report in reports {
                        let kept = merged.get(&report.name).is_some_and(|k| k.healthy);
                        if !kept {
                            merged.insert(report.name.clone(), report);
                        }
                    }
                }
                Err(fault) => {
                    tracing::warn!(%worker, error = chain(&fault), "worker does not tell its providers");
                    failed = Some(fault);
                }
            }
        }
        match failed {
            Some(fault) if !answered => Err(fault),
            Some(_) | None => Ok(merged.into_values().collect()),
        }
    }
}
