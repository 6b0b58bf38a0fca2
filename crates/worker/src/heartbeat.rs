//! Tells control that this worker lives, and what it can do.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::Heartbeat;

use crate::core::{Backoff, Core};

/// What this release can do, beside making sandboxes.
const CAPABILITIES: [&str; 5] = ["api", "single_node", "spawn", "exec", "files"];
/// A heartbeat is one row; one that takes longer is sent anew.
const DEADLINE: Duration = Duration::from_secs(10);

/// Beats at once and then at each interval, sooner after a failure. Runs until the worker stops.
pub(crate) async fn run(core: Arc<Core>) {
    let interval = core.config.heartbeat_interval;
    let fresh = || Backoff::new(Duration::from_millis(250).min(interval), interval);
    let mut backoff = fresh();
    loop {
        // What `providers(false)` tells is as old as the last beat, at most.
        core.provider_reports(true).await;
        let beat = core.control.heartbeat(beat(&core));
        let failed = match tokio::time::timeout(DEADLINE, beat).await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault.message),
            Err(_) => Some("no answer".to_owned()),
        };
        let pause = match failed {
            None => {
                backoff = fresh();
                interval
            }
            Some(error) => {
                tracing::debug!(error, "heartbeat failed");
                backoff.next(&*core.clock)
            }
        };
        if !core.pause(pause).await {
            return;
        }
    }
}

fn beat(core: &Core) -> Heartbeat {
    Heartbeat {
        worker_id: core.config.id.clone(),
        hostname: core.config.hostname.clone(),
        status: "online".to_owned(),
        providers: core.providers.names(),
        capabilities: CAPABILITIES.iter().map(|&c| c.to_owned()).collect(),
        capacity: core.config.capacity.clone(),
    }
}
