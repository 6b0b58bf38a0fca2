//! Fills each pool, when nobody has to wait for it.

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{ExecSpec, Request};
use protocol::worker::{LeaseToken, SpawnOrder};
use providers::PreparedImage;
use types::{EndedReason, Fault, SandboxId};

use super::shelves::Room;
use super::take::Warmth;
use crate::core::{Backoff, Core};
use crate::guest::{Guest, GuestError, Said};
use crate::supervisor::{AGENT_DEADLINE, Phase, Sandbox};

/// Nobody was served for so long: one may be made.
const QUIET: Duration = Duration::from_millis(10);
/// Under a load that never pauses one is made all the same, after so many looks.
const PATIENCE: u32 = 25;
/// How often a pool without memory looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Where most programs lie.
const PROGRAMS: [&str; 2] = ["/bin/sh", "/usr/bin/env"];
/// Longer than the name of any file.
const NO_NAME: usize = 300;
/// What is not measured counts as this much.
const UNMEASURED: u64 = 1 << 20;

/// Keeps one pool full until the worker stops.
pub(crate) async fn run(core: Arc<Core>, n: usize) {
    if core.adopted().await.is_err() {
        return;
    }
    let wanted = core.pool.wanted(n);
    let fresh = || Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
    let mut backoff = fresh();
    loop {
        let pause = match core.pool.room(n) {
            Room::Closed => return,
            Room::Full => None,
            Room::NoMemory => {
                let share = core.pool.config.memory_bytes >> 20;
                let why = format!("the {share} MiB that the warm pools may hold are used");
                core.pool.hold_up(n, Some(why));
                Some(LOOK_AGAIN)
            }
            Room::Yes => match make(&core, n).await {
                Ok(()) => {
                    backoff = fresh();
                    continue;
                }
                Err(_) if core.stop.is_cancelled() => return,
                Err(fault) => {
                    let image = &core.pool.config.pools[n].image;
                    tracing::warn!(image, error = %fault, "the warm pool cannot be filled");
                    core.pool.forgo(n, Some(fault.message));
                    Some(backoff.next(&*core.clock))
                }
            },
        };
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = wanted.notified(), if pause.is_none() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Makes one and puts it on its shelf. Whoever calls has room for it, and keeps that on a fault.
async fn make(core: &Arc<Core>, n: usize) -> Result<(), Fault> {
    let pool = &core.pool.config.pools[n];
    let provider = Arc::clone(core.providers.find(&pool.provider)?);
    // Whoever took the last one has better things to wait for.
    quiet(core).await;
    // Fetched, if need be, while the others are filled.
    let image = provider.prepare(&pool.image).await?;
    let _one_at_a_time = core.pool.making.acquire().await;
    quiet(core).await;
    if core.stop.is_cancelled() {
        return Err(Fault::unavailable("the worker is stopping"));
    }
    let sandbox = core.make_warm(n, image).await?;
    let made = sandbox.made().expect("it was made");
    // What fails here shows when it is used, or has been noticed by then.
    let _ = tokio::time::timeout(AGENT_DEADLINE, rehearse(&made.guest)).await;
    let stats = sandbox.provider.stats(&made.runtime).await;
    let bytes = stats.ok().and_then(|s| s.memory_bytes).unwrap_or(UNMEASURED);
    if !core.pool.place(n, Arc::clone(&sandbox), bytes) {
        core.clear(sandbox);
    } else if sandbox.phase() != Phase::Warm {
        // It died before it was placed, when it could not be found there.
        core.pool.forget(&sandbox.id);
    }
    Ok(())
}

/// Walks the way of a first command, so that the first one that counts finds it trodden: memory of
/// the agent that is its own from now on, its control groups, the directories of programs. Nothing
/// of the image runs: the program's name is longer than any file system has.
async fn rehearse(guest: &Guest) -> Result<(), GuestError> {
    for path in PROGRAMS {
        let _ = guest.ask(&Request::Stat { path: path.to_owned() }).await;
    }
    let mut output = guest
        .exec(ExecSpec {
            exec_id: "rehearsal".to_owned(),
            argv: vec![format!("/{}", "-".repeat(NO_NAME))],
            quiet: true,
            ..ExecSpec::default()
        })
        .await?;
    while !matches!(output.next().await?, Said::Done(_)) {}
    Ok(())
}

/// Waits until nobody is being served, or for as long as the pool can wait.
async fn quiet(core: &Core) {
    for _ in 0..PATIENCE {
        let idle = core.clock.boot().since(core.pool.served_at());
        if idle >= QUIET || !core.pause(QUIET - idle).await {
            return;
        }
    }
}

impl Core {
    /// Makes a sandbox for a pool: as any other, but nobody is told of it.
    async fn make_warm(
        self: &Arc<Self>,
        n: usize,
        image: PreparedImage,
    ) -> Result<Arc<Sandbox>, Fault> {
        let pool = &self.pool.config.pools[n];
        let provider = Arc::clone(self.providers.find(&pool.provider)?);
        let id = new_id()?;
        let now = self.clock.boot();
        let expires_at = self.clock.wall().saturating_add(self.max_age());
        let expiry = self.expiry_at(expires_at);
        let sandbox = Arc::new(Sandbox::new(
            id.clone(),
            self.folder_of(&id),
            provider.name().to_owned(),
            provider,
            0,
            expiry,
            now,
            Phase::Spawning,
        ));
        let _ = sandbox.warmth.set(Warmth::new(n, image));
        let order = SpawnOrder {
            sandbox_id: id.clone(),
            lease: LeaseToken {
                resource_id: id,
                holder_id: self.config.id.clone(),
                generation: 0,
                expires_at,
            },
            provider: pool.provider.clone(),
            image: pool.image.clone(),
            size: pool.size,
            owner_id: None,
            expires_at,
            metadata: Default::default(),
        };
        let turn = Arc::clone(&sandbox.turn).try_lock_owned().expect("nobody else has it yet");
        if self.sandboxes.insert(&sandbox).is_err() {
            return Err(Fault::internal("an id of a sandbox came up twice"));
        }
        let (core, made) = (Arc::clone(self), Arc::clone(&sandbox));
        let work = self.tasks.spawn(async move { core.make(&made, order, turn).await });
        work.await.unwrap_or_else(|e| {
            Err(Fault::internal("making a sandbox for the pool was interrupted").caused_by(e))
        })?;
        match sandbox.phase() {
            Phase::Warm => Ok(sandbox),
            Phase::Spawning
            | Phase::Running
            | Phase::Dead(_)
            | Phase::Destroying(_)
            | Phase::Gone(_) => Err(Fault::dead("a sandbox of the pool died at once")),
        }
    }

    /// Between three quarters and all of the age that they may reach, so that they do not all grow
    /// too old together.
    fn max_age(&self) -> Duration {
        let most = self.pool.config.max_age;
        Backoff::new(most / 2, most / 2).next(&*self.clock) + most / 2
    }

    /// Unmakes all that waits: the worker stops.
    pub(crate) async fn empty_pool(self: &Arc<Self>) {
        let ends = self.pool.close().into_iter().map(|sandbox| async move {
            let _ = self.end(&sandbox, EndedReason::Destroyed, None).await;
        });
        futures_util::future::join_all(ends).await;
    }
}

fn new_id() -> Result<SandboxId, Fault> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|e| Fault::internal("making a sandbox id failed").caused_by(e))?;
    Ok(SandboxId::from_random(bytes))
}
