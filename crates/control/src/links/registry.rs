//! Which worker is reached how. Nobody can tell near from far.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use protocol::worker::WorkerLink;
use types::WorkerId;

/// Attached workers. A link outlives its row in the worker registry: forgetting a worker does not
/// take its sandboxes away.
#[derive(Default)]
pub(crate) struct Links(RwLock<BTreeMap<WorkerId, Attached>>);

struct Attached {
    link: Arc<dyn WorkerLink>,
    /// Whether its inventory was compared with the store since it was attached.
    adopted: bool,
}

impl Links {
    pub fn attach(&self, id: WorkerId, link: Arc<dyn WorkerLink>) {
        self.write().insert(id, Attached { link, adopted: false });
    }

    pub fn get(&self, id: &WorkerId) -> Option<Arc<dyn WorkerLink>> {
        self.read().get(id).map(|a| a.link.clone())
    }

    pub fn has(&self, id: &WorkerId) -> bool {
        self.read().contains_key(id)
    }

    pub fn all(&self) -> Vec<(WorkerId, Arc<dyn WorkerLink>)> {
        self.read().iter().map(|(id, a)| (id.clone(), a.link.clone())).collect()
    }

    pub fn mark_adopted(&self, id: &WorkerId) {
        if let Some(attached) = self.write().get_mut(id) {
            attached.adopted = true;
        }
    }

    pub fn all_adopted(&self) -> bool {
        self.read().values().all(|a| a.adopted)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<WorkerId, Attached>> {
        self.0.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<WorkerId, Attached>> {
        self.0.write().unwrap_or_else(|e| e.into_inner())
    }
}
