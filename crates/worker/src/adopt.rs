//! Takes back, after a restart, the sandboxes that lived on, and clears away what did not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use providers::{Liveness, Provider};
use types::failpoint::hit;
use types::{EndedReason, ErrorCode, Fault, SandboxId};

use crate::config::Providers;
use crate::core::{Backoff, Core};
use crate::folder;
use crate::journal::{self, Last, Replayed, Unreadable};
use crate::supervisor::{Expiry, Phase, Sandbox};

/// Sandboxes that are looked at together.
const AT_ONCE: usize = 64;
/// Looking at one takes microseconds; a provider that hangs must not hold up the others.
const INSPECT_DEADLINE: Duration = Duration::from_secs(10);
const INSPECT_ATTEMPTS: u32 = 3;
/// Remains that are not cleared by then wait for the next start.
const SWEEP_DEADLINE: Duration = Duration::from_secs(60);

/// A sandbox that an earlier server left behind.
pub(crate) struct Found {
    pub id: SandboxId,
    pub dir: PathBuf,
    pub journal: Replayed,
}

/// Reads all journals, and removes folders of which nothing is known. Blocks.
pub(crate) fn scan(folders: &Path) -> Result<Vec<Found>, Fault> {
    let unreadable =
        |e: io::Error| Fault::unavailable("the worker's journals cannot be read").caused_by(e);
    hit("adopt.scan");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folders).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // What is not named like a sandbox is not ours.
        let Some(id) = entry.file_name().into_string().ok().and_then(|n| SandboxId::parse(n).ok())
        else {
            continue;
        };
        let dir = entry.path();
        match journal::read(&dir) {
            Ok(journal) if journal.intent.sandbox_id == id => {
                found.push(Found { id, dir, journal });
            }
            Ok(_) | Err(Unreadable::Nothing) => {
                // It never got as far as an order; a provider's remains are found by its sweep.
                if let Err(e) = folder::remove_blocking(&dir) {
                    tracing::warn!(sandbox = %id, error = %e, "a stray folder stays");
                }
            }
            Err(Unreadable::Newer(version)) => {
                return Err(Fault::unavailable(format!(
                    "the journal of sandbox {id} is of version {version}, which a newer release \
                     wrote: start that one"
                )));
            }
            Err(Unreadable::Io(e)) => return Err(unreadable(e)),
        }
    }
    Ok(found)
}

/// Deals with sandboxes of another installation: refuses while one lives, else clears
/// them away, and returns ours.
pub(crate) async fn without_foreign(
    found: Vec<Found>,
    providers: &Providers,
    installation: &str,
    boot_id: &str,
) -> Result<Vec<Found>, Fault> {
    let (ours, foreign): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|f| f.journal.intent.installation_id == installation);
    let mut living = Vec::new();
    for one in &foreign {
        if one.journal.intent.boot_id == boot_id && lives(one, providers).await {
            living.push(one.id.as_str());
        }
    }
    if !living.is_empty() {
        return Err(Fault::new(
            ErrorCode::Unavailable,
            format!(
                "sandboxes of another installation still live in this data directory: {}",
                living.join(", ")
            ),
        ));
    }
    for one in foreign {
        tracing::info!(sandbox = %one.id, "clearing what another installation left");
        if let Ok(provider) = providers.find(&one.journal.intent.provider) {
            provider.destroy(&one.id, one.journal.runtime.as_ref()).await?;
        }
        folder::remove(&one.dir).await.map_err(|e| {
            Fault::unavailable("what another installation left cannot be removed").caused_by(e)
        })?;
    }
    Ok(ours)
}

/// Whether a foreign sandbox lives, or can't be shown not to.
async fn lives(found: &Found, providers: &Providers) -> bool {
    let Some(runtime) = &found.journal.runtime else { return false };
    let Ok(provider) = providers.find(&found.journal.intent.provider) else { return true };
    match tokio::time::timeout(INSPECT_DEADLINE, provider.inspect(runtime)).await {
        Ok(Ok(Liveness::Dead(_) | Liveness::Gone)) => false,
        Ok(Ok(Liveness::Alive) | Err(_)) | Err(_) => true,
    }
}

/// Adopts what lives, ends the rest, sweeps, and opens the doors.
pub(crate) async fn run(core: Arc<Core>, found: Vec<Found>) {
    let count = found.len();
    let before = core.clock.boot();
    let known: Vec<SandboxId> = found.iter().map(|f| f.id.clone()).collect();
    stream::iter(found)
        .for_each_concurrent(AT_ONCE, |one| {
            let core = Arc::clone(&core);
            async move { adopt(&core, one).await }
        })
        .await;
    for (name, provider) in core.providers.iter() {
        sweep(name, provider, &known).await;
    }
    hit("adopt.swept");
    let took = core.clock.boot().since(before);
    tracing::info!(sandboxes = count, took_ms = took.as_millis() as u64, "adoption done");
    core.adopted.send_replace(true);
}

async fn sweep(name: &str, provider: &Arc<dyn Provider>, known: &[SandboxId]) {
    match tokio::time::timeout(SWEEP_DEADLINE, provider.sweep(known)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(n)) => tracing::info!(provider = name, remains = n, "swept"),
        Ok(Err(e)) => tracing::warn!(provider = name, error = %e, "sweep failed"),
        Err(_) => tracing::warn!(provider = name, "sweep takes too long"),
    }
}

async fn adopt(core: &Arc<Core>, found: Found) {
    let Found { id, dir, journal } = found;
    let intent = &journal.intent;
    let Ok(provider) = core.providers.find(&intent.provider) else {
        // Its agent ends it in time; until then somebody may configure the provider again.
        tracing::warn!(sandbox = %id, provider = intent.provider, "no such provider: left alone");
        return;
    };
    if journal.torn
        && let Err(e) = journal::mend(&dir)
    {
        tracing::warn!(sandbox = %id, error = %e, "journal not mended");
    }
    let phase = match journal.last {
        Last::Dead(reason) => Phase::Dead(reason),
        Last::Destroying(reason) => Phase::Destroying(reason),
        Last::Intent | Last::Running => Phase::Spawning,
    };
    let expiry = Expiry { expires_at: intent.expires_at, deadline: intent.deadline };
    let sandbox = Arc::new(Sandbox::new(
        id,
        dir,
        intent.provider.clone(),
        Arc::clone(provider),
        intent.generation,
        expiry,
        intent.started,
        phase,
    ));
    if let Some(runtime) = journal.runtime.clone() {
        sandbox.set_made(runtime, core.config.guest_idle);
    }
    if core.sandboxes.insert(&sandbox).is_err() {
        return;
    }
    if intent.boot_id != core.boot_id {
        return core.end_left_over(&sandbox, EndedReason::HostRebooted).await;
    }
    if intent.warm {
        // Nobody was told of it, and what is wanted may have changed: the pool fills itself anew.
        return drop(core.end(&sandbox, EndedReason::Expired, None).await);
    }
    match journal.last {
        Last::Intent => core.end_left_over(&sandbox, EndedReason::SpawnFailed).await,
        Last::Destroying(reason) => core.end_left_over(&sandbox, reason).await,
        Last::Dead(_) => {
            core.ttl.set(&sandbox.id, expiry.deadline);
            core.report(&sandbox, false);
        }
        Last::Running => {
            take_back(core, &sandbox, expiry).await;
            if journal.taken {
                core.tell_end(&sandbox, Duration::ZERO);
            }
        }
    }
}

/// It ran when it was last heard of.
async fn take_back(core: &Arc<Core>, sandbox: &Arc<Sandbox>, expiry: Expiry) {
    sandbox.set_phase(Phase::Running);
    core.ttl.set(&sandbox.id, expiry.deadline);
    match liveness(core, sandbox).await {
        Liveness::Alive => {
            if let Some(made) = sandbox.made()
                && let Err(e) = sandbox.provider.adopt(&made.runtime).await
            {
                tracing::error!(sandbox = %sandbox.id, error = %e, "adoption is incomplete");
            }
            core.watch(sandbox);
            hit("adopt.taken");
        }
        Liveness::Dead(reason) => core.died(sandbox, reason).await,
        Liveness::Gone => core.died(sandbox, EndedReason::Crashed).await,
    }
}

/// Whether it lives. In doubt it does: its watch or its ttl will tell otherwise.
async fn liveness(core: &Core, sandbox: &Sandbox) -> Liveness {
    let Some(made) = sandbox.made() else { return Liveness::Gone };
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    for _ in 0..INSPECT_ATTEMPTS {
        let seen = sandbox.provider.inspect(&made.runtime);
        match tokio::time::timeout(INSPECT_DEADLINE, seen).await {
            Ok(Ok(liveness)) => return liveness,
            Ok(Err(e)) => tracing::warn!(sandbox = %sandbox.id, error = %e, "inspect failed"),
            Err(_) => tracing::warn!(sandbox = %sandbox.id, "inspect takes too long"),
        }
        if !core.pause(backoff.next(&*core.clock)).await {
            break;
        }
    }
    Liveness::Alive
}
