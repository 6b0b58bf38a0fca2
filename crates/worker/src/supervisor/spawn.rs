//! Makes a sandbox: journals the order, asks the provider, shakes hands with the agent. Whatever
//! fails, nothing is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{SpawnOrder, Spawned};
use providers::{AgentSocket, CreateSpec};
use tokio::sync::OwnedMutexGuard;
use types::failpoint::hit;
use types::{EndedReason, ErrorCode, Fault};

use super::lease::conflict;
use super::{Expiry, Phase, Sandbox};
use crate::core::Core;
use crate::journal::{self, Intent, Step};

/// Making a sandbox takes milliseconds; an overloaded host gets a minute before all is undone.
const CREATE_DEADLINE: Duration = Duration::from_secs(60);

impl Core {
    /// Makes a sandbox, once per id and generation.
    pub(crate) async fn spawn(self: &Arc<Self>, order: SpawnOrder) -> Result<Spawned, Fault> {
        self.adopted().await?;
        self.pool.serving(self.clock.boot());
        self.check_lease(&order.sandbox_id, &order.lease)?;
        let provider = Arc::clone(self.providers.find(&order.provider)?);
        let now = self.clock.boot();
        let expiry = self.expiry_at(order.expires_at);
        if expiry.deadline <= now {
            return Err(Fault::bad_request("the sandbox would end before it begins"));
        }
        let sandbox = Arc::new(Sandbox::new(
            order.sandbox_id.clone(),
            self.folder_of(&order.sandbox_id),
            provider.name().to_owned(),
            provider,
            order.lease.generation,
            expiry,
            now,
            Phase::Spawning,
        ));
        let turn = Arc::clone(&sandbox.turn).try_lock_owned().expect("nobody else has it yet");
        if let Err(there) = self.sandboxes.insert(&sandbox) {
            return self.spawned_before(&there, &order).await;
        }
        let core = Arc::clone(self);
        let work = self.tasks.spawn(async move { core.make(&sandbox, order, turn).await });
        work.await.unwrap_or_else(|e| {
            Err(Fault::internal("spawning the sandbox was interrupted").caused_by(e))
        })
    }

    /// Answers a repeated order as the first one, waiting for it if it is under way.
    async fn spawned_before(
        &self,
        sandbox: &Sandbox,
        order: &SpawnOrder,
    ) -> Result<Spawned, Fault> {
        sandbox.check_generation(&order.lease)?;
        let mut phase = sandbox.phase.subscribe();
        let phase = phase
            .wait_for(|p| *p != Phase::Spawning)
            .await
            .map(|p| *p)
            .map_err(|_| Fault::unavailable("the worker is stopping"))?;
        if let Some((code, message)) = sandbox.spawn_fault.get() {
            return Err(Fault::new(*code, message.clone()));
        }
        match phase {
            Phase::Running => Ok(Spawned { runtime_id: None }),
            Phase::Spawning
            | Phase::Warm
            | Phase::Dead(_)
            | Phase::Destroying(_)
            | Phase::Gone(_) => {
                Err(conflict(format!("sandbox {} was spawned before and has ended", sandbox.id)))
            }
        }
    }

    pub(crate) async fn make(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        order: SpawnOrder,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Spawned, Fault> {
        let socket = match self.spares.make(&sandbox.dir) {
            Ok(socket) => socket,
            Err(e) => {
                // One that is there already is somebody else's to undo.
                let fault = journal_fault(e);
                let _ = sandbox.spawn_fault.set((fault.code, fault.message.clone()));
                self.sandboxes.remove(&sandbox.id);
                sandbox.set_phase(Phase::Gone(EndedReason::SpawnFailed));
                return Err(fault);
            }
        };
        hit("spawn.folder");
        self.ttl.set(&sandbox.id, sandbox.expiry().deadline);
        match self.try_make(sandbox, order, socket).await {
            Ok(()) => {
                let waits = sandbox.waits();
                sandbox.set_phase(if waits { Phase::Warm } else { Phase::Running });
                self.watch(sandbox);
                hit("spawn.running");
                Ok(Spawned { runtime_id: None })
            }
            Err(fault) => {
                let _ = sandbox.spawn_fault.set((fault.code, fault.message.clone()));
                if let Err(left) = self.unmake(sandbox, EndedReason::SpawnFailed).await {
                    tracing::warn!(sandbox = %sandbox.id, error = %left, "undoing a spawn failed");
                    self.retry_destroy(sandbox);
                }
                drop(turn);
                Err(fault)
            }
        }
    }

    async fn try_make(
        &self,
        sandbox: &Sandbox,
        order: SpawnOrder,
        socket: Option<AgentSocket>,
    ) -> Result<(), Fault> {
        let intent = self.intent(sandbox, &order);
        journal::append(&sandbox.dir, &Step::Intent(intent)).map_err(journal_fault)?;
        hit("spawn.journaled");
        let image = match sandbox.warmth.get() {
            Some(warmth) => warmth.image.clone(),
            // It may have to be fetched: a destroy need not wait for that.
            None => tokio::select! {
                image = sandbox.provider.prepare(&order.image) => image?,
                () = sandbox.doomed.cancelled() => return Err(sandbox.unwanted()),
            },
        };
        hit("spawn.prepared");
        let spec = CreateSpec {
            id: sandbox.id.clone(),
            dir: sandbox.dir.clone(),
            socket,
            image,
            size: order.size,
            deadline: self.agent_deadline(sandbox.expiry().deadline),
            tied: self.config.tied,
        };
        let runtime =
            tokio::time::timeout(CREATE_DEADLINE, sandbox.provider.create(spec))
                .await
                .map_err(|_| Fault::unavailable("the host is too busy to make a sandbox"))??;
        hit("spawn.created");
        let made = sandbox.set_made(runtime.clone(), self.config.guest_idle);
        // The line is written while the agent answers.
        let (greeted, journaled) = tokio::join!(made.guest.greet(), async {
            journal::append(&sandbox.dir, &Step::Running { runtime })
        });
        journaled.map_err(journal_fault)?;
        if let Err(error) = greeted {
            return Err(Fault::unavailable("the new sandbox does not answer").caused_by(error));
        }
        hit("spawn.greeted");
        if sandbox.doomed.is_cancelled() {
            return Err(sandbox.unwanted());
        }
        Ok(())
    }

    fn intent(&self, sandbox: &Sandbox, order: &SpawnOrder) -> Intent {
        let expiry = sandbox.expiry();
        Intent {
            sandbox_id: sandbox.id.clone(),
            provider: sandbox.provider_name.clone(),
            image: order.image.clone(),
            size: order.size,
            owner_id: order.owner_id.clone(),
            generation: order.lease.generation,
            installation_id: self.config.installation_id.clone(),
            boot_id: self.boot_id.clone(),
            created_at: self.clock.wall(),
            started: sandbox.started,
            expires_at: expiry.expires_at,
            deadline: expiry.deadline,
            warm: sandbox.waits(),
        }
    }

    /// Converts wall time once: from here on only boot time counts, whatever is done to the clock.
    pub(crate) fn expiry_at(&self, expires_at: types::Timestamp) -> Expiry {
        let left = expires_at.since(self.clock.wall());
        Expiry { expires_at, deadline: self.clock.boot().saturating_add(left) }
    }
}

impl Sandbox {
    fn unwanted(&self) -> Fault {
        conflict(format!("sandbox {} was destroyed while it was spawned", self.id))
    }
}

/// The journal could not be written: without it nothing may be made.
pub(crate) fn journal_fault(error: io::Error) -> Fault {
    let fault = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fault::unavailable("the worker's disk is full")
        }
        io::ErrorKind::AlreadyExists => {
            Fault::new(ErrorCode::Conflict, "remains of a sandbox with this id are still there")
        }
        _ => Fault::unavailable("the worker cannot write its journal"),
    };
    fault.caused_by(error)
}
