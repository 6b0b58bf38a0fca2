//! Finds a sandbox by its id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, RwLock};

use types::SandboxId;

use super::Sandbox;

/// Enough that two threads rarely meet in one.
const SHARDS: usize = 32;

type Shard = RwLock<HashMap<SandboxId, Arc<Sandbox>>>;

/// All sandboxes of this worker. No lock is held longer than a look-up.
pub(crate) struct Sandboxes {
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

impl Sandboxes {
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Shard::default()) }
    }

    fn shard(&self, id: &SandboxId) -> &Shard {
        let hash = self.hasher.hash_one(id);
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    pub fn get(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.shard(id).read().unwrap_or_else(|e| e.into_inner()).get(id).cloned()
    }

    /// Puts a sandbox in, unless there is one of that id: then that one comes back.
    pub fn insert(&self, sandbox: &Arc<Sandbox>) -> Result<(), Arc<Sandbox>> {
        let mut shard = self.shard(&sandbox.id).write().unwrap_or_else(|e| e.into_inner());
        match shard.entry(sandbox.id.clone()) {
            Entry::Occupied(there) => Err(Arc::clone(there.get())),
            Entry::Vacant(place) => {
                place.insert(Arc::clone(sandbox));
                Ok(())
            }
        }
    }

    pub fn remove(&self, id: &SandboxId) {
        self.shard(id).write().unwrap_or_else(|e| e.into_inner()).remove(id);
    }

    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().unwrap_or_else(|e| e.into_inner()).values().cloned());
        }
        all
    }
}
