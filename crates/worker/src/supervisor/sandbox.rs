//! What is known of one sandbox.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use protocol::worker::SandboxFact;
use providers::{Provider, Runtime};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use types::clock::BootTime;
use types::{EndedReason, ErrorCode, Fault, SandboxId, SandboxState, Timestamp};

use crate::guest::{Guest, GuestError, Lost, fault_of};
use crate::pool::Warmth;
use crate::stats::CpuSample;

/// How long the end of a connection may come before the news that the sandbox died.
const NEWS_DELAY: Duration = Duration::from_secs(1);

/// How far a sandbox has come.
///
/// ```text
/// Spawning ──> Running ──> Dead ──┐
///    │          ^  │└─────────────┴──> Destroying ──> Gone
///    │          │  v                       ^
///    ├───────> Warm ───────────────────────┤
///    └─────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Spawning,
    /// It waits in the warm pool.
    Warm,
    Running,
    /// Its PID 1 is gone.
    Dead(EndedReason),
    Destroying(EndedReason),
    /// Nothing is left; the map no longer has it.
    Gone(EndedReason),
}

/// When it ends. Wall time is for people; the deadline decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub expires_at: Timestamp,
    pub deadline: BootTime,
}

/// One sandbox.
pub(crate) struct Sandbox {
    pub id: SandboxId,
    pub dir: PathBuf,
    pub provider_name: String,
    pub provider: Arc<dyn Provider>,
    /// When it was made, for the first reading of its CPU use.
    pub started: BootTime,
    pub phase: watch::Sender<Phase>,
    /// Whoever changes its phase holds this.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// It is to be destroyed: a spawn under way gives up.
    pub doomed: CancellationToken,
    /// A task repeats its destroy.
    pub retrying: AtomicBool,
    /// Why its spawn failed, for who asked twice.
    pub spawn_fault: OnceLock<(ErrorCode, String)>,
    pub cpu: Mutex<Option<CpuSample>>,
    generation: AtomicU64,
    expiry: Mutex<Expiry>,
    /// Of one that was made for the warm pool.
    pub warmth: OnceLock<Warmth>,
    made: OnceLock<Made>,
    watch: Mutex<Option<AbortHandle>>,
}

/// What there is once the provider made it.
pub(crate) struct Made {
    pub runtime: Arc<Runtime>,
    pub guest: Guest,
}

impl Sandbox {
    #[allow(clippy::too_many_arguments)] // each is a fact of its own
    pub fn new(
        id: SandboxId,
        dir: PathBuf,
        provider_name: String,
        provider: Arc<dyn Provider>,
        generation: u64,
        expiry: Expiry,
        started: BootTime,
        phase: Phase,
    ) -> Self {
        Self {
            id,
            dir,
            provider_name,
            provider,
            started,
            phase: watch::Sender::new(phase),
            turn: Arc::default(),
            doomed: CancellationToken::new(),
            retrying: AtomicBool::new(false),
            spawn_fault: OnceLock::new(),
            cpu: Mutex::new(None),
            generation: AtomicU64::new(generation),
            expiry: Mutex::new(expiry),
            warmth: OnceLock::new(),
            made: OnceLock::new(),
            watch: Mutex::new(None),
        }
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Never goes down.
    pub fn raise_generation(&self, to: u64) {
        self.generation.fetch_max(to, Ordering::AcqRel);
    }

    pub fn expiry(&self) -> Expiry {
        *lock(&self.expiry)
    }

    pub fn set_expiry(&self, expiry: Expiry) {
        *lock(&self.expiry) = expiry;
    }

    pub fn set_made(&self, runtime: Runtime, idle: Duration) -> &Made {
        self.made.get_or_init(|| {
            let runtime = Arc::new(runtime);
            let guest = Guest::new(Arc::clone(&self.provider), Arc::clone(&runtime), idle);
            Made { runtime, guest }
        })
    }

    pub fn made(&self) -> Option<&Made> {
        self.made.get()
    }

    pub fn set_watch(&self, task: Option<AbortHandle>) {
        let before = std::mem::replace(&mut *lock(&self.watch), task);
        if let Some(before) = before {
            before.abort();
        }
    }

    pub fn fact(&self) -> SandboxFact {
        let (state, reason) = match self.phase() {
            Phase::Spawning | Phase::Warm => (SandboxState::Creating, None),
            Phase::Running => (SandboxState::Running, None),
            Phase::Dead(reason) => (SandboxState::Error, Some(reason)),
            Phase::Destroying(reason) => (SandboxState::Destroying, Some(reason)),
            Phase::Gone(reason) => (SandboxState::Destroyed, Some(reason)),
        };
        SandboxFact {
            sandbox_id: self.id.clone(),
            provider: self.provider_name.clone(),
            state,
            reason,
            generation: self.generation(),
            expires_at: self.expiry().expires_at,
        }
    }

    /// Its agent, if it can be called now.
    pub fn guest(&self) -> Result<&Guest, Fault> {
        match (self.phase(), self.made()) {
            (Phase::Running, Some(made)) => Ok(&made.guest),
            (phase, _) => Err(self.refuse(phase)),
        }
    }

    fn refuse(&self, phase: Phase) -> Fault {
        let id = &self.id;
        match phase {
            Phase::Dead(reason) => Fault::dead(format!("sandbox {id} {}", reason.in_words())),
            Phase::Destroying(reason) | Phase::Gone(reason) => {
                Fault::not_found(format!("sandbox {id} {}", reason.in_words()))
            }
            Phase::Spawning | Phase::Warm | Phase::Running => {
                Fault::new(ErrorCode::Conflict, format!("sandbox {id} is still being spawned"))
            }
        }
    }

    /// Why a call that had begun failed. A lost connection usually means that the sandbox ended:
    /// the news of that is waited for, so that the answer can say so.
    pub async fn explain(&self, error: GuestError) -> Fault {
        let (delay, cause): (_, Box<dyn std::error::Error + Send + Sync>) = match error {
            GuestError::Agent(said) => return fault_of(said),
            GuestError::Fault(fault) => return fault,
            // This side ended it: the phase is set already, or there is no news to come.
            GuestError::Lost(lost @ (Lost::HungUp | Lost::Protocol(_) | Lost::Silent)) => {
                (Duration::ZERO, lost.into())
            }
            GuestError::Lost(lost @ (Lost::Closed | Lost::Io(_))) => (NEWS_DELAY, lost.into()),
            GuestError::Unreachable(fault) => (NEWS_DELAY, fault.into()),
        };
        let mut phase = self.phase.subscribe();
        let ended =
            phase.wait_for(|p| !matches!(p, Phase::Spawning | Phase::Warm | Phase::Running));
        let ended = tokio::time::timeout(delay, ended).await;
        let id = &self.id;
        match ended.as_ref().map(|news| news.as_ref().map(|phase| **phase)) {
            Ok(Ok(Phase::Dead(reason) | Phase::Destroying(reason) | Phase::Gone(reason))) => {
                Fault::dead(format!("sandbox {id} {}", reason.in_words())).caused_by(cause)
            }
            Ok(Ok(Phase::Spawning | Phase::Warm | Phase::Running) | Err(_)) | Err(_) => {
                Fault::unavailable(format!("the connection to sandbox {id} was lost"))
                    .caused_by(cause)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
