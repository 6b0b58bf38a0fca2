//! Listing workers, and forgetting one. Forgetting touches no sandbox.

use store::WorkerRecord;
use types::{Fault, WorkerId};

use super::freshness::Freshness;
use crate::Control;
use crate::fault::{shown, store_fault};

/// A worker as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    pub record: WorkerRecord,
    /// Its last heartbeat is older than it should be: it gets no new sandboxes.
    pub stale: bool,
}

impl Control {
    /// By id, ascending.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Fault> {
        let inner = &self.0;
        let rows = inner.workers.refresh(inner.store.as_ref()).await.map_err(store_fault)?;
        Ok(rows.into_iter().map(|record| self.view(record)).collect())
    }

    pub async fn worker(&self, id: &str) -> Result<WorkerView, Fault> {
        let worker = parse(id)?;
        let found = self.workers().await?.into_iter().find(|w| w.record.id == worker);
        found.ok_or_else(|| unknown(id))
    }

    /// Forgets a worker's row. If it lives it is back at a heartbeat after 30 s.
    pub async fn delete_worker(&self, id: &str) -> Result<(), Fault> {
        let inner = &self.0;
        let worker = parse(id)?;
        if inner.store.worker(worker.clone()).await.map_err(store_fault)?.is_none() {
            return Err(unknown(id));
        }
        inner.workers.keep_away(&worker);
        match inner.store.delete_worker(worker.clone()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(unknown(id)),
            Err(error) => {
                inner.workers.let_back(&worker);
                Err(store_fault(error))
            }
        }
    }

    fn view(&self, record: WorkerRecord) -> WorkerView {
        let stale = self.0.workers.freshness(&record.id) != Some(Freshness::Fresh);
        WorkerView { record, stale }
    }
}

fn parse(id: &str) -> Result<WorkerId, Fault> {
    WorkerId::parse(id).map_err(|_| unknown(id))
}

fn unknown(id: &str) -> Fault {
    Fault::not_found(format!("worker {} not found", shown(id)))
}
