//! Unmakes a sandbox and removes all its traces, however often that takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::agent::Request;
use protocol::worker::{LeaseToken, SandboxEnded};
use types::failpoint::hit;
use types::{EndedReason, Fault, SandboxId};

use super::{Phase, Sandbox};
use crate::core::{Backoff, Core};
use crate::journal::{self, Step};

/// A provider that takes longer than this for one sandbox is asked again.
const DESTROY_DEADLINE: Duration = Duration::from_secs(60);
/// What the end of an expired sandbox waits for control: with a look in between it is destroyed in
/// less than two seconds.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often commands that were asked to end are looked at.
const GRACE_STEP: Duration = Duration::from_millis(25);

impl Core {
    /// Destroys a sandbox; joins a destroy that is under way. An unknown id is destroyed already.
    pub(crate) async fn destroy(
        self: &Arc<Self>,
        id: &SandboxId,
        lease: &LeaseToken,
        reason: EndedReason,
        grace: Option<Duration>,
    ) -> Result<(), Fault> {
        self.adopted().await?;
        self.pool.serving(self.clock.boot());
        self.check_holder(id, lease)?;
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        sandbox.check_generation(lease)?;
        sandbox.raise_generation(lease.generation);
        let core = Arc::clone(self);
        let work = self.tasks.spawn(async move { core.end(&sandbox, reason, grace).await });
        work.await.unwrap_or_else(|e| {
            Err(Fault::internal("destroying the sandbox was interrupted").caused_by(e))
        })
    }

    /// Its time is up, and control may still want what its commands have said.
    pub(crate) async fn last_words(&self, sandbox: &Sandbox) {
        if sandbox.phase() == Phase::Running {
            let asked = self.control.ending(sandbox.id.clone());
            // An end waits for nobody.
            let _ = tokio::time::timeout(LAST_WORDS, asked).await;
        }
    }

    /// The time of a sandbox is up.
    pub(crate) async fn expire(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let reason = match sandbox.phase() {
            Phase::Spawning | Phase::Warm | Phase::Running => EndedReason::Expired,
            // One that died before keeps the reason it died of.
            Phase::Dead(reason) => reason,
            // Whoever destroys it answers for it.
            Phase::Destroying(_) | Phase::Gone(_) => return,
        };
        // A failure is repeated in the background, which then reports.
        if self.end(sandbox, reason, None).await.is_ok() {
            self.report(sandbox, true);
        }
    }

    pub(crate) async fn end(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        reason: EndedReason,
        grace: Option<Duration>,
    ) -> Result<(), Fault> {
        sandbox.doomed.cancel();
        if let Some(grace) = grace {
            // Commands that do not end in time are ended with the sandbox.
            let _ = tokio::time::timeout(grace, ask_to_end(sandbox)).await;
        }
        let _turn = sandbox.turn.lock().await;
        let done = self.unmake(sandbox, reason).await;
        if let Err(fault) = &done {
            let source = fault.source.as_deref().map(tracing::field::display);
            tracing::warn!(sandbox = %sandbox.id, error = %fault, source, "destroy failed");
            self.retry_destroy(sandbox);
        }
        done
    }

    /// Takes a sandbox apart; whoever calls has its turn. May be repeated until it succeeds.
    pub(super) async fn unmake(&self, sandbox: &Sandbox, reason: EndedReason) -> Result<(), Fault> {
        let reason = match sandbox.phase() {
            Phase::Gone(_) => return Ok(()),
            // The first reason stays.
            Phase::Destroying(first) => first,
            Phase::Spawning | Phase::Warm | Phase::Running | Phase::Dead(_) => {
                // Without this line a later server would find it dead, and destroy it then.
                if let Err(e) = journal::append(&sandbox.dir, &Step::Destroying { reason }) {
                    tracing::debug!(sandbox = %sandbox.id, error = %e, "journal not written");
                }
                sandbox.set_phase(Phase::Destroying(reason));
                reason
            }
        };
        hit("destroy.journaled");
        sandbox.set_watch(None);
        if sandbox.warmth.get().is_some() {
            self.pool.forget(&sandbox.id);
        }
        let made = sandbox.made();
        if let Some(made) = made {
            made.guest.hang_up();
        }
        let runtime = made.map(|m| &*m.runtime);
        let destroyed = sandbox.provider.destroy(&sandbox.id, runtime);
        tokio::time::timeout(DESTROY_DEADLINE, destroyed).await.map_err(|_| {
            Fault::unavailable(format!("sandbox {} is not destroyed yet", sandbox.id))
        })??;
        hit("destroy.killed");
        self.spares.remove(&sandbox.dir).await.map_err(|e| {
            Fault::unavailable("the sandbox's folder cannot be removed").caused_by(e)
        })?;
        hit("destroy.removed");
        self.ttl.remove(&sandbox.id);
        self.sandboxes.remove(&sandbox.id);
        sandbox.set_phase(Phase::Gone(reason));
        Ok(())
    }

    /// Ends what an earlier server left, and reports it.
    pub(crate) async fn end_left_over(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        reason: EndedReason,
    ) {
        // A failure is repeated in the background, which then reports.
        if self.end(sandbox, reason, None).await.is_ok() {
            self.report(sandbox, true);
        }
    }

    /// Repeats a destroy until it succeeds, and reports it then.
    pub(super) fn retry_destroy(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if sandbox.retrying.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = Arc::clone(self);
        let sandbox = Arc::clone(sandbox);
        self.tasks.spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            while core.pause(backoff.next(&*core.clock)).await {
                let _turn = sandbox.turn.lock().await;
                if core.unmake(&sandbox, EndedReason::Destroyed).await.is_ok() {
                    core.report(&sandbox, true);
                    return;
                }
            }
        });
    }

    /// Tells control what became of a sandbox that nobody asked about.
    pub(crate) fn report(&self, sandbox: &Sandbox, removed: bool) {
        let reason = match sandbox.phase() {
            Phase::Dead(reason) | Phase::Destroying(reason) | Phase::Gone(reason) => reason,
            Phase::Spawning | Phase::Warm | Phase::Running => return,
        };
        if sandbox.waits() {
            return;
        }
        self.outbox.put(SandboxEnded {
            sandbox_id: sandbox.id.clone(),
            generation: sandbox.generation(),
            reason,
            removed,
        });
    }
}

/// Sends TERM to every command and waits until none runs.
async fn ask_to_end(sandbox: &Sandbox) {
    let Ok(guest) = sandbox.guest() else { return };
    let mut asked = std::collections::HashSet::new();
    while let Ok(execs) = guest.execs().await {
        let mut running = execs.into_iter().filter(|e| e.running).peekable();
        if running.peek().is_none() {
            return;
        }
        for exec in running {
            if asked.insert(exec.exec_id.clone()) {
                let signal = Request::Signal { exec_id: exec.exec_id, signal: "TERM".to_owned() };
                // It may have ended meanwhile.
                let _ = guest.tell(signal).await;
            }
        }
        tokio::time::sleep(GRACE_STEP).await;
    }
}
