//! Hands out what waits, and takes it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::agent::Request;
use protocol::worker::{WarmOrder, WarmPoolReport};
use providers::PreparedImage;
use types::clock::BootTime;
use types::failpoint::hit;
use types::{EndedReason, Fault, SandboxId};

use crate::core::Core;
use crate::journal::{self, Step};
use crate::supervisor::{AGENT_DEADLINE, Expiry, Phase, Sandbox, journal_fault};

/// Control records what it was handed within moments. What it did not record by then it does not
/// know of, and finds in the inventory.
const LENT: Duration = Duration::from_secs(30);

/// One whose time in the pool is nearly over is not handed out any more.
const LEFT: Duration = Duration::from_secs(1);

/// The agent learns when it ends a little later than it is handed out, when nobody waits any more:
/// it has more time left by itself than that.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// What is known of a sandbox that was made for a pool.
#[derive(Debug)]
pub(crate) struct Warmth {
    /// Which pool.
    pub pool: usize,
    pub image: PreparedImage,
    /// When it was handed out, in nanoseconds of boot time; 0: it waits.
    taken: AtomicU64,
}

impl Warmth {
    pub fn new(pool: usize, image: PreparedImage) -> Self {
        Self { pool, image, taken: AtomicU64::new(0) }
    }
}

impl Sandbox {
    /// It waits in a pool: nobody knows of it.
    pub(crate) fn waits(&self) -> bool {
        self.warmth.get().is_some_and(|w| w.taken.load(Ordering::Acquire) == 0)
    }

    /// Control need not have recorded it yet.
    pub(crate) fn is_lent(&self, now: BootTime) -> bool {
        self.warmth.get().is_some_and(|w| {
            let taken = BootTime::from_nanos(w.taken.load(Ordering::Acquire));
            now.since(taken) < LENT
        })
    }
}

impl Core {
    /// Hands out one that fits. A fault means that the journal cannot be written.
    pub(crate) async fn take_warm(
        self: &Arc<Self>,
        order: WarmOrder,
    ) -> Result<Option<SandboxId>, Fault> {
        let now = self.clock.boot();
        self.pool.serving(now);
        if !self.pool.has(order.size) {
            return Ok(None);
        }
        self.adopted().await?;
        if self.expiry_at(order.expires_at).deadline <= now {
            return Ok(None);
        }
        let Ok(provider) = self.providers.find(&order.provider) else { return Ok(None) };
        let Some(image) = provider.prepared(&order.image).await else { return Ok(None) };
        for old in self.pool.outdated(&order.image, &image) {
            self.clear(old);
        }
        while let Some(sandbox) = self.pool.pop(provider.name(), order.size, &image) {
            if self.hand_over(&sandbox, &order)? {
                return Ok(Some(sandbox.id.clone()));
            }
        }
        Ok(None)
    }

    /// `false`: it is being unmade, or about to be.
    fn hand_over(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        order: &WarmOrder,
    ) -> Result<bool, Fault> {
        let Ok(_turn) = sandbox.turn.try_lock() else { return Ok(false) };
        let Some(warmth) = sandbox.warmth.get().filter(|_| sandbox.phase() == Phase::Warm) else {
            return Ok(false);
        };
        // Whoever ends it for its age may be on the way already.
        if sandbox.expiry().deadline.since(self.clock.boot()) < LEFT {
            return Ok(false);
        }
        let expiry = self.expiry_at(order.expires_at);
        let (generation, expires_at) = (order.generation, order.expires_at);
        let step = Step::Extended { generation, expires_at, deadline: expiry.deadline };
        if let Err(error) = journal::append(&sandbox.dir, &step) {
            // It may be there in part: no longer one that nobody was promised.
            self.clear(Arc::clone(sandbox));
            return Err(journal_fault(error));
        }
        hit("pool.journaled");
        sandbox.raise_generation(order.generation);
        sandbox.set_expiry(expiry);
        self.ttl.set(&sandbox.id, expiry.deadline);
        warmth.taken.store(self.clock.boot().nanos().max(1), Ordering::Release);
        sandbox.set_phase(Phase::Running);
        self.pool.count_taken(warmth.pool);
        self.tell_end(sandbox, TELL_AFTER);
        Ok(true)
    }

    /// Tells the agent when to end, while nobody waits for it. One that does not hear it would end
    /// too early: it ends now, and control hears of that.
    pub(crate) fn tell_end(self: &Arc<Self>, sandbox: &Arc<Sandbox>, after: Duration) {
        let (core, sandbox) = (Arc::clone(self), Arc::clone(sandbox));
        self.tasks.spawn(async move {
            if !core.pause(after).await {
                return;
            }
            // It may have been extended meanwhile, or be back in the pool; while it is told, neither.
            let turn = sandbox.turn.lock().await;
            let boot_nanos = core.agent_deadline(sandbox.expiry().deadline).nanos();
            let Ok(guest) = sandbox.guest() else { return };
            let asked = guest.tell(Request::Deadline { boot_nanos });
            let told = tokio::select! {
                told = tokio::time::timeout(AGENT_DEADLINE, asked) => matches!(told, Ok(Ok(()))),
                () = sandbox.doomed.cancelled() => return,
            };
            drop(turn);
            if !told && !core.stop.is_cancelled() {
                core.died(&sandbox, EndedReason::Crashed).await;
            }
        });
    }

    /// Takes back one that was handed out and never used.
    pub(crate) async fn return_warm(self: &Arc<Self>, id: &SandboxId) -> Result<(), Fault> {
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let Some(warmth) = sandbox.warmth.get().filter(|_| !sandbox.waits()) else { return Ok(()) };
        let turn = sandbox.turn.lock().await;
        if sandbox.phase() != Phase::Running {
            return Ok(());
        }
        let deadline = sandbox.started.saturating_add(self.pool.config.max_age);
        let left = deadline.since(self.clock.boot());
        let expires_at = self.clock.wall().saturating_add(left);
        let step = Step::Returned { expires_at, deadline };
        let kept = !left.is_zero() && journal::append(&sandbox.dir, &step).is_ok() && {
            sandbox.set_phase(Phase::Warm);
            warmth.taken.store(0, Ordering::Release);
            sandbox.set_expiry(Expiry { expires_at, deadline });
            self.ttl.set(id, deadline);
            self.pool.put_back(warmth.pool, Arc::clone(&sandbox))
        };
        drop(turn);
        if !kept {
            self.clear(sandbox);
        }
        Ok(())
    }

    /// Destroys one that nobody was given, in the background.
    pub(super) fn clear(self: &Arc<Self>, sandbox: Arc<Sandbox>) {
        let core = Arc::clone(self);
        self.tasks.spawn(async move {
            // What fails is repeated in the background.
            let _ = core.end(&sandbox, EndedReason::Expired, None).await;
        });
    }

    pub(crate) fn warm_pools(&self) -> Vec<WarmPoolReport> {
        let report = |(n, pool): (usize, &super::WarmPool)| {
            let seen = self.pool.see(n);
            let provider = self.providers.find(&pool.provider).map(|p| p.name());
            WarmPoolReport {
                provider: provider.unwrap_or(&pool.provider).to_owned(),
                image: pool.image.clone(),
                size: pool.size,
                desired: pool.count as u64,
                ready: seen.ready as u64,
                taken: seen.taken,
                memory_bytes: seen.bytes,
                max_age: self.pool.config.max_age,
                held_up: seen.held_up,
            }
        };
        self.pool.config.pools.iter().enumerate().map(report).collect()
    }
}
