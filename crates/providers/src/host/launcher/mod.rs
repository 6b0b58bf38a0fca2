//! Keeps a spawner process running and puts orders to it.
//!
//! The spawner ends by itself when its socket closes; sandboxes live on. One that dies is started
//! again, with a growing pause, and is told which slots are taken.

mod channel;
mod process;
mod program;
mod supervise;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::spawner::{HostFacts, Made, Order, Reply, Setup, SpawnSpec};
use tokio::sync::watch;
use types::{ErrorCode, Fault};

use channel::{Channel, ChannelError};
use program::Program;
use supervise::Running;

/// How long an order may take; the slowest is a kernel that is out of memory.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
/// How long an order waits for a spawner that is being started again.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Slots in use that only the living processes tell of. Reads procfs.
pub(crate) type FindSlots = Box<dyn Fn() -> Vec<u32> + Send + Sync>;

pub(crate) struct Launcher {
    shared: Arc<Shared>,
    running: Running,
    facts: HostFacts,
}

/// What the supervising task needs as well.
struct Shared {
    program: Program,
    setup: Setup,
    slots: Mutex<BTreeMap<String, u32>>,
    find_slots: FindSlots,
    current: watch::Sender<Option<Arc<Channel>>>,
    #[cfg(test)]
    last_pid: std::sync::atomic::AtomicU32,
}

impl Launcher {
    /// Starts the first spawner; a host that can't run one is told here.
    pub async fn start(setup: Setup, find_slots: FindSlots) -> Result<Self, Fault> {
        let cannot = |e: std::io::Error| {
            Fault::unavailable("the program that makes sandboxes does not start").caused_by(e)
        };
        let program = Program::load(crate::embedded::SPAWNER).map_err(cannot)?;
        let (current, _) = watch::channel(None);
        let slots = Mutex::default();
        let shared = Arc::new(Shared {
            program,
            setup,
            slots,
            find_slots,
            current,
            #[cfg(test)]
            last_pid: Default::default(),
        });
        let (running, facts) = supervise::start(shared.clone()).await?;
        Ok(Self { shared, running, facts })
    }

    /// What the spawner found it can do.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Makes a sandbox; `fds`: the listening socket and, if it is tied, the pipe.
    pub async fn spawn(&self, spec: SpawnSpec, fds: &[BorrowedFd<'_>]) -> Result<Made, Fault> {
        let id = spec.id.clone();
        match self.order(&Order::Spawn(Box::new(spec)), fds).await? {
            Reply::Spawned { made } => {
                self.note_slot(&id, made.slot);
                Ok(made)
            }
            other => Err(failed("make the sandbox", other)),
        }
    }

    /// Gives everything of an ended sandbox back.
    pub async fn release(&self, id: &str, slot: Option<u32>) -> Result<(), Fault> {
        let slot = slot.or_else(|| self.shared.slots().get(id).copied());
        let order = Order::Release { id: id.to_owned(), slot };
        match self.order(&order, &[]).await? {
            Reply::Released => {
                self.shared.slots().remove(id);
                Ok(())
            }
            other => Err(failed("release the sandbox", other)),
        }
    }

    /// Keeps the slot of a sandbox that an earlier spawner made.
    pub async fn adopt(&self, id: &str, slot: Option<u32>) -> Result<(), Fault> {
        self.note_slot(id, slot);
        match self.order(&Order::Adopt { id: id.to_owned(), slot }, &[]).await? {
            Reply::Adopted => Ok(()),
            other => Err(failed("adopt the sandbox", other)),
        }
    }

    /// Whether there is a spawner to ask now.
    pub fn is_up(&self) -> bool {
        self.shared.current.borrow().is_some()
    }

    /// Ends the spawner and waits until it is gone; what it made lives on.
    pub async fn stop(&self) {
        self.running.stop().await;
    }

    /// The process that was started last, for tests that end it.
    #[cfg(test)]
    pub fn last_pid(&self) -> u32 {
        self.shared.last_pid.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn note_slot(&self, id: &str, slot: Option<u32>) {
        if let Some(slot) = slot {
            self.shared.slots().insert(id.to_owned(), slot);
        }
    }

    async fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Reply, Fault> {
        let channel = self.channel().await?;
        match tokio::time::timeout(ORDER_LIMIT, channel.ask(order, fds)).await {
            Ok(done) => done.map_err(unanswered),
            Err(_) => Err(Fault::unavailable("the spawner does not answer")),
        }
    }

    async fn channel(&self) -> Result<Arc<Channel>, Fault> {
        let mut current = self.shared.current.subscribe();
        let up = tokio::time::timeout(START_LIMIT, current.wait_for(Option::is_some)).await;
        match up {
            Ok(Ok(channel)) => Ok(channel.clone().expect("waited for one")),
            Ok(Err(_)) | Err(_) => Err(Fault::unavailable("the spawner is not running")),
        }
    }
}

impl Shared {
    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u32>> {
        self.slots.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The setup of a new spawner: with the slots that are taken by now.
    fn setup(&self) -> Setup {
        let mut used: Vec<u32> = self.slots().values().copied().collect();
        used.extend((self.find_slots)());
        used.sort_unstable();
        used.dedup();
        Setup { used_slots: used, ..self.setup.clone() }
    }
}

fn unanswered(error: ChannelError) -> Fault {
    match error {
        ChannelError::TooLong => {
            Fault::bad_request("the image's environment is too large for a sandbox")
        }
        ChannelError::Closed | ChannelError::Io(_) => {
            Fault::unavailable("the spawner ended before it answered").caused_by(error)
        }
    }
}

/// Turns a refusal into words; the stage is ours and names no path.
fn failed(what: &str, reply: Reply) -> Fault {
    match reply {
        Reply::Failed { stage, errno } => {
            let cause = std::io::Error::from_raw_os_error(errno);
            let code = match errno {
                libc::EAGAIN
                | libc::ENOMEM
                | libc::ENOSPC
                | libc::EDQUOT
                | libc::EMFILE
                | libc::ENFILE
                | libc::EUSERS => ErrorCode::ResourceLimit,
                _ => ErrorCode::Unavailable,
            };
            Fault::new(code, format!("could not {what}: {stage}: {cause}"))
        }
        Reply::Ready { .. } | Reply::Spawned { .. } | Reply::Released | Reply::Adopted => {
            Fault::internal(format!("could not {what}: the spawner answered something else"))
        }
    }
}

#[cfg(test)]
mod tests;
