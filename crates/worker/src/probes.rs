//! How the providers are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use protocol::worker::ProviderReport;
use providers::Provider;

use crate::core::Core;

/// A probe is cheap; a provider that takes longer than this is not well.
const DEADLINE: Duration = Duration::from_secs(3);

/// What was last seen.
#[derive(Default)]
pub(crate) struct Probes {
    last: Mutex<Vec<ProviderReport>>,
}

impl Core {
    /// Asks all providers, at the same time, if `fresh` or never done; else tells what was seen.
    pub(crate) async fn provider_reports(&self, fresh: bool) -> Vec<ProviderReport> {
        if !fresh {
            let last = self.probes.last.lock().unwrap_or_else(|e| e.into_inner()).clone();
            if !last.is_empty() {
                return last;
            }
        }
        let asked = self.providers.iter().map(|(name, provider)| self.probe(name, provider));
        let reports = join_all(asked).await;
        reports.clone_into(&mut self.probes.last.lock().unwrap_or_else(|e| e.into_inner()));
        reports
    }

    async fn probe(&self, name: &str, provider: &Arc<dyn Provider>) -> ProviderReport {
        let before = self.clock.boot();
        let error = match tokio::time::timeout(DEADLINE, provider.probe()).await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault.message),
            Err(_) => Some("the provider does not answer".to_owned()),
        };
        ProviderReport {
            name: name.to_owned(),
            healthy: error.is_none(),
            default: name == self.providers.default_name(),
            latency: self.clock.boot().since(before),
            checked_at: self.clock.wall(),
            error,
            capabilities: provider.capabilities(),
            config: provider.config(),
        }
    }
}
