//! The subvolumes of our sandboxes: taken from a pool, removed in the background.
//!
//! A sandbox's is called `<scope>.<sandbox id>`, a prepared one `<scope>.pool.<number>`. Each holds
//! the directories `u` and `w` for an overlay.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, mkdirat, openat, renameat};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use types::SandboxId;

use super::btrfs;
use super::mounted::{Mounted, Usage};

pub(super) struct Layers {
    mounted: Arc<Mounted>,
    scope: String,
    wanted: usize,
    next: AtomicU64,
    state: Mutex<State>,
    /// Told of each new one: whoever looks seldom while there is none waits for it.
    pub added: Notify,
}

/// Bounded: `ready` by `wanted`, `trash` by the sandboxes there were.
#[derive(Default)]
struct State {
    ready: Vec<String>,
    trash: VecDeque<String>,
}

impl Layers {
    /// Takes over what an earlier process prepared.
    pub fn new(mounted: Arc<Mounted>, scope: &str, wanted: usize) -> io::Result<Self> {
        let layers = Self {
            mounted,
            scope: scope.to_owned(),
            wanted,
            next: AtomicU64::new(0),
            state: Mutex::default(),
            added: Notify::new(),
        };
        let prefix = layers.name("pool.");
        for name in layers.ours()? {
            if let Some(number) = name.strip_prefix(&prefix) {
                let number = number.parse::<u64>().unwrap_or(0);
                layers.next.fetch_max(number + 1, Ordering::Relaxed);
                layers.state().ready.push(name);
            }
        }
        Ok(layers)
    }

    /// The layer of a new sandbox, with its limit. Replaces one that is there.
    pub fn take(&self, id: &SandboxId, bytes: u64) -> io::Result<String> {
        self.added.notify_one();
        let name = self.name(id.as_str());
        let root = self.mounted.root();
        let prepared = self.state().ready.pop();
        let from = match prepared {
            Some(from) => from,
            None => self.prepare()?,
        };
        let taken = match renameat(root, &from, root, &name) {
            Err(_) => {
                let _ = btrfs::destroy(root, &name); // what an interrupted create left
                renameat(root, &from, root, &name)
            }
            done => done,
        };
        let limited = taken.map_err(io::Error::from).and_then(|()| self.limit(&name, bytes));
        if let Err(error) = limited {
            self.state().trash.extend([from, name]);
            return Err(error);
        }
        Ok(name)
    }

    fn limit(&self, name: &str, bytes: u64) -> io::Result<()> {
        btrfs::limit(self.open(name)?.as_fd(), bytes)
    }

    /// What the layer of a sandbox holds and may hold; `None` if it has none.
    pub fn usage(&self, id: &SandboxId) -> Option<Usage> {
        let layer = self.open(&self.name(id.as_str())).ok()?;
        self.mounted.usage(btrfs::subvolume_id(layer.as_fd()).ok()?)
    }

    fn open(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.mounted.root(), name, flags, Mode::empty())?)
    }

    /// Makes one for the pool.
    fn prepare(&self) -> io::Result<String> {
        let root = self.mounted.root();
        let name = self.name(&format!("pool.{}", self.next.fetch_add(1, Ordering::Relaxed)));
        btrfs::create(root, &name)?;
        let dir = self.open(&name)?;
        mkdirat(&dir, "u", Mode::from_raw_mode(0o755))?;
        mkdirat(&dir, "w", Mode::from_raw_mode(0o700))?;
        Ok(name)
    }

    pub fn discard(&self, id: &SandboxId) {
        let name = self.name(id.as_str());
        self.state().trash.push_back(name);
    }

    /// Removes one; whether there was one to remove.
    fn remove_one(&self) -> bool {
        let name = self.state().trash.pop_front();
        let Some(name) = name else { return false };
        match btrfs::destroy(self.mounted.root(), &name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, "a writable layer is not removed; a sweep comes back");
            }
            _ => {}
        }
        true
    }

    /// One more for the pool; whether there was room.
    fn fill_one(&self) -> bool {
        if self.state().ready.len() >= self.wanted {
            return false;
        }
        match self.prepare() {
            Ok(name) => {
                self.state().ready.push(name);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no writable layer can be prepared");
                false
            }
        }
    }

    /// Sandboxes that have a layer here.
    pub fn sandboxes(&self) -> Vec<SandboxId> {
        let prefix = self.name("");
        let ours = self.ours().unwrap_or_default();
        let ids = ours.iter().filter_map(|n| SandboxId::parse(n.strip_prefix(&prefix)?).ok());
        ids.collect()
    }

    /// Whether any sandbox has one; looks at few names, however many there are.
    pub fn in_use(&self) -> bool {
        let (prefix, pool) = (self.name(""), self.name("pool."));
        let names = std::fs::read_dir(self.mounted.point()).into_iter().flatten().flatten();
        let mut names = names.filter_map(|e| e.file_name().into_string().ok());
        names.any(|n| n.starts_with(&prefix) && !n.starts_with(&pool))
    }

    /// Removes what is prepared, and what is queued.
    pub fn empty_pool(&self) {
        {
            let mut state = self.state();
            let ready = std::mem::take(&mut state.ready);
            state.trash.extend(ready);
        }
        while self.remove_one() {}
    }

    fn ours(&self) -> io::Result<Vec<String>> {
        let prefix = self.name("");
        let names = std::fs::read_dir(self.mounted.point())?.flatten();
        Ok(names
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| n.starts_with(&prefix))
            .collect())
    }

    fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.scope)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The task that removes and prepares, off everybody's path.
pub(super) struct Keeper {
    wake: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub fn start(layers: Arc<Layers>) -> Self {
        let wake = Arc::new(Notify::new());
        let (stop, mut stopped) = watch::channel(false);
        let woken = wake.clone();
        let task = tokio::spawn(async move {
            while !*stopped.borrow() {
                let work = layers.clone();
                // One step at a time, so that a stop is never far.
                let step = spawn_blocking(move || work.fill_one() | work.remove_one());
                if !step.await.unwrap_or(false) {
                    tokio::select! {
                        () = woken.notified() => {}
                        _ = stopped.wait_for(|s| *s) => break,
                    }
                }
            }
        });
        Self { wake, stop, task }
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns when the task has ended.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
