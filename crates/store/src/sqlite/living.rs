//! The records of living sandboxes, in memory: nearly every request begins with one, and a trip to
//! a reader's thread and back costs more than all the rest of such a look-up.
//!
//! Only the writer's thread changes it, after the commit and before the answer, so that nobody
//! sees here what is not stored, and whoever was answered finds what he wrote. No other process
//! writes to this database (see `guard`).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use types::{Sandbox, SandboxId};

/// Bytes of labels from which a record is read from the database each time: the memory that is
/// used here grows with the number of sandboxes, not with what callers write on them.
const MAX_METADATA: usize = 4096;

#[derive(Default)]
pub(super) struct Living(RwLock<HashMap<SandboxId, Arc<Sandbox>>>);

impl Living {
    pub(super) fn new(records: Vec<Sandbox>) -> Self {
        let small = records.into_iter().filter(is_kept);
        Self(RwLock::new(small.map(|s| (s.id.clone(), Arc::new(s))).collect()))
    }

    /// `None`: ask the database.
    pub(super) fn get(&self, id: &SandboxId) -> Option<Sandbox> {
        let found = self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        found.map(|record| Sandbox::clone(&record))
    }

    /// From now on the database is asked, or what closed it answers.
    pub(super) fn clear(&self) {
        std::mem::take(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A record as it is stored from now on.
    pub(super) fn note(&self, record: &Sandbox) {
        let kept = is_kept(record).then(|| Arc::new(record.clone()));
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = match kept {
            Some(kept) => all.insert(record.id.clone(), kept),
            None => all.remove(&record.id),
        };
        drop(all);
        drop(before);
    }
}

fn is_kept(record: &Sandbox) -> bool {
    let metadata: usize = record.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    !record.state.is_final() && metadata <= MAX_METADATA
}
