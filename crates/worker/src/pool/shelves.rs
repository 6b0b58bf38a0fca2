//! What waits in each pool.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use providers::PreparedImage;
use tokio::sync::{Notify, Semaphore};
use types::clock::BootTime;
use types::{SandboxId, SandboxSize};

use super::WarmConfig;
use crate::supervisor::Sandbox;

/// What one that waits is taken to hold until the first was measured.
const GUESS: u64 = 1 << 20;

pub(crate) struct Pool {
    pub config: WarmConfig,
    state: Mutex<State>,
    /// One is made at a time, whatever number of pools there is.
    pub making: Semaphore,
    /// When somebody was last served, in nanoseconds of boot time.
    served: AtomicU64,
}

struct State {
    shelves: Vec<Shelf>,
    closed: bool,
}

/// The ready ones of one pool, oldest first.
#[derive(Default)]
struct Shelf {
    ready: VecDeque<Ready>,
    /// Room given to those that are being made.
    coming: usize,
    taken: u64,
    held_up: Option<String>,
    wanted: Arc<Notify>,
}

struct Ready {
    sandbox: Arc<Sandbox>,
    bytes: u64,
}

/// One shelf as it is now.
pub(super) struct Seen {
    pub ready: usize,
    pub taken: u64,
    pub bytes: u64,
    pub held_up: Option<String>,
}

/// Whether one more may be made.
pub(super) enum Room {
    Yes,
    /// As many are there as are wanted.
    Full,
    /// The memory that all of them may hold is used.
    NoMemory,
    /// The worker stops.
    Closed,
}

impl Pool {
    pub fn new(config: WarmConfig) -> Self {
        let shelves = config.pools.iter().map(|_| Shelf::default()).collect();
        Self {
            config,
            state: Mutex::new(State { shelves, closed: false }),
            making: Semaphore::new(1),
            served: AtomicU64::new(0),
        }
    }

    /// Somebody is served: background work waits.
    pub fn serving(&self, now: BootTime) {
        self.served.store(now.nanos(), Ordering::Relaxed);
    }

    pub fn served_at(&self) -> BootTime {
        BootTime::from_nanos(self.served.load(Ordering::Relaxed))
    }

    pub(super) fn see(&self, n: usize) -> Seen {
        let state = self.state();
        let shelf = &state.shelves[n];
        Seen {
            ready: shelf.ready.len(),
            taken: shelf.taken,
            bytes: shelf.ready.iter().map(|r| r.bytes).sum(),
            held_up: shelf.held_up.clone(),
        }
    }

    /// Takes room for one more; [`Pool::place`] or [`Pool::forgo`] gives it back.
    pub(super) fn room(&self, n: usize) -> Room {
        let mut state = self.state();
        if state.closed {
            return Room::Closed;
        }
        let shelf = &state.shelves[n];
        if shelf.ready.len() + shelf.coming >= self.config.pools[n].count {
            return Room::Full;
        }
        let all = state.shelves.iter().flat_map(|s| &s.ready);
        let (held, largest) = all.fold((0, 0), |(sum, most), r| (sum + r.bytes, r.bytes.max(most)));
        let each = if largest > 0 { largest } else { GUESS };
        let coming = state.shelves.iter().map(|s| s.coming as u64).sum::<u64>();
        if held + (coming + 1) * each > self.config.memory_bytes {
            return Room::NoMemory;
        }
        state.shelves[n].coming += 1;
        Room::Yes
    }

    /// One that was made waits from now on. `false`: nobody wants it any more.
    pub(super) fn place(&self, n: usize, sandbox: Arc<Sandbox>, bytes: u64) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        let shelf = &mut state.shelves[n];
        shelf.coming -= 1;
        shelf.held_up = None;
        if !closed {
            shelf.ready.push_back(Ready { sandbox, bytes });
        }
        !closed
    }

    /// The room was not used; why, if that will not pass by itself at once.
    pub(super) fn forgo(&self, n: usize, why: Option<String>) {
        let mut state = self.state();
        state.shelves[n].coming -= 1;
        state.shelves[n].held_up = why;
    }

    pub(super) fn hold_up(&self, n: usize, why: Option<String>) {
        self.state().shelves[n].held_up = why;
    }

    /// The oldest that fits.
    pub(super) fn pop(
        &self,
        provider: &str,
        size: SandboxSize,
        image: &PreparedImage,
    ) -> Option<Arc<Sandbox>> {
        let mut state = self.state();
        for (shelf, pool) in state.shelves.iter_mut().zip(&self.config.pools) {
            let fits = |ready: &Ready| {
                ready.sandbox.provider_name == provider
                    && ready.sandbox.warmth.get().is_some_and(|w| w.image == *image)
            };
            if pool.size == size
                && let Some(at) = shelf.ready.iter().position(fits)
            {
                shelf.wanted.notify_one();
                return shelf.ready.remove(at).map(|ready| ready.sandbox);
            }
        }
        None
    }

    pub(super) fn count_taken(&self, n: usize) {
        self.state().shelves[n].taken += 1;
    }

    /// Whether any waits of that size: else there is nothing to look for.
    pub(super) fn has(&self, size: SandboxSize) -> bool {
        if self.config.pools.is_empty() {
            return false;
        }
        let state = self.state();
        state
            .shelves
            .iter()
            .zip(&self.config.pools)
            .any(|(s, p)| p.size == size && !s.ready.is_empty())
    }

    /// It was handed out and comes back. `false`: nobody wants it any more.
    pub(super) fn put_back(&self, n: usize, sandbox: Arc<Sandbox>) -> bool {
        let mut state = self.state();
        let room = !state.closed;
        let shelf = &mut state.shelves[n];
        shelf.taken = shelf.taken.saturating_sub(1);
        let bytes = shelf.ready.front().map_or(GUESS, |r| r.bytes);
        if room {
            shelf.ready.push_front(Ready { sandbox, bytes });
        }
        room
    }

    /// Takes out those of pools of that image name whose content is another by now.
    pub(super) fn outdated(&self, name: &str, image: &PreparedImage) -> Vec<Arc<Sandbox>> {
        let mut out = Vec::new();
        let mut state = self.state();
        for (shelf, pool) in state.shelves.iter_mut().zip(&self.config.pools) {
            if pool.image != name {
                continue;
            }
            shelf.ready.retain(|ready| {
                let same = ready.sandbox.warmth.get().is_some_and(|w| w.image == *image);
                if !same {
                    out.push(Arc::clone(&ready.sandbox));
                }
                same
            });
            shelf.wanted.notify_one();
        }
        out
    }

    /// It is being unmade.
    pub fn forget(&self, id: &SandboxId) {
        let mut state = self.state();
        for shelf in &mut state.shelves {
            let before = shelf.ready.len();
            shelf.ready.retain(|ready| ready.sandbox.id != *id);
            if shelf.ready.len() < before {
                shelf.wanted.notify_one();
            }
        }
    }

    /// Told when one may be missing.
    pub(super) fn wanted(&self, n: usize) -> Arc<Notify> {
        Arc::clone(&self.state().shelves[n].wanted)
    }

    /// From now on nothing is handed out or made.
    pub fn close(&self) -> Vec<Arc<Sandbox>> {
        let mut state = self.state();
        state.closed = true;
        state.shelves.iter_mut().flat_map(|s| s.ready.drain(..)).map(|r| r.sandbox).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
