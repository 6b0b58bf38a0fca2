//! What a sandbox uses: the host's numbers, completed by the agent's.

use std::time::Duration;

use protocol::worker::StatsReport;
use types::clock::BootTime;
use types::{Fault, SandboxId};

use crate::core::Core;
use crate::supervisor::Sandbox;

/// Two readings closer than this say nothing about a rate: the last one stands.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// An agent answers in microseconds; a busy one must not hold up the host's numbers.
const AGENT_DEADLINE: Duration = Duration::from_secs(2);

/// CPU time used up to a moment, and the rate that was told then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CpuSample {
    pub at: BootTime,
    pub used: Duration,
    pub percent: f64,
}

impl Core {
    pub(crate) async fn stats(&self, id: &SandboxId) -> Result<StatsReport, Fault> {
        self.adopted().await?;
        let sandbox = self.sandbox(id)?;
        let guest = sandbox.guest()?;
        let runtime = &sandbox.made().expect("it has a guest").runtime;
        let host = sandbox.provider.stats(runtime).await?;
        let mut report = StatsReport {
            cpu_pct: host.cpu_usage.map(|used| percent(&sandbox, self.clock.boot(), used)),
            cpu_usage: host.cpu_usage,
            memory_bytes: host.memory_bytes,
            memory_limit_bytes: host.memory_limit_bytes,
            pids: host.pids,
            disk_bytes: host.disk_bytes,
            disk_limit_bytes: host.disk_limit_bytes,
        };
        if report.disk_bytes.is_none()
            && let Ok(Ok(inside)) = tokio::time::timeout(AGENT_DEADLINE, guest.status()).await
        {
            report.disk_bytes = Some(inside.disk_bytes);
            let limit = (inside.disk_limit_bytes > 0).then_some(inside.disk_limit_bytes);
            report.disk_limit_bytes = report.disk_limit_bytes.or(limit);
        }
        Ok(report)
    }
}

/// Percent of one CPU since the last reading, or since the spawn.
fn percent(sandbox: &Sandbox, now: BootTime, used: Duration) -> f64 {
    let mut last = sandbox.cpu.lock().unwrap_or_else(|e| e.into_inner());
    let before =
        last.unwrap_or(CpuSample { at: sandbox.started, used: Duration::ZERO, percent: 0.0 });
    let elapsed = now.since(before.at);
    if elapsed < MIN_INTERVAL {
        return before.percent;
    }
    let percent = used.saturating_sub(before.used).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    *last = Some(CpuSample { at: now, used, percent });
    percent
}
