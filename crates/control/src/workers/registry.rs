//! The worker registry in memory: a mirror of the store's rows, so that a spawn needs no read, and
//! the seats taken on each worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::worker::Heartbeat;
use store::{Store, StoreError, WorkerRecord};
use tokio::sync::Notify;
use types::WorkerId;
use types::clock::{BootTime, SharedClock};

use super::freshness::{Freshness, freshness};
use crate::links::Links;
use crate::placement::{Demand, NoPlace, View, choose};

/// A deleted worker that still lives stays away so long: whoever deleted it can see that it went.
const KEPT_AWAY: Duration = Duration::from_secs(30);

pub(crate) struct Registry {
    clock: SharedClock,
    known: Mutex<Known>,
    heard: Notify,
}

#[derive(Default)]
struct Known {
    workers: BTreeMap<WorkerId, Entry>,
    deleted: HashMap<WorkerId, BootTime>,
    /// Sandboxes on each worker; outlives a row, since sandboxes do.
    active: HashMap<WorkerId, u64>,
    seat_moves: u64,
    /// Every provider ever announced: one whose worker is away is not unknown.
    providers: BTreeSet<String>,
}

struct Entry {
    record: WorkerRecord,
    heard_at: BootTime,
    /// What was last said about it in the log.
    said: Freshness,
}

/// Room on a worker, given back when dropped unless a record took it over.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    pub worker_id: WorkerId,
    pub preview_domain: Option<String>,
    kept: bool,
}

impl Seat {
    /// A record now holds it; ending that record frees it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.release(&self.worker_id);
        }
    }
}

impl Registry {
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, known: Mutex::default(), heard: Notify::new() }
    }

    /// Remembers a sign of life, unless the worker was deleted a moment ago.
    pub async fn heartbeat(&self, store: &dyn Store, beat: Heartbeat) -> Result<(), StoreError> {
        let id = beat.worker_id.clone();
        if self.kept_away(&id) {
            return Ok(());
        }
        let now = self.clock.wall();
        let record = WorkerRecord {
            id: beat.worker_id,
            hostname: beat.hostname,
            status: beat.status,
            providers: Some(beat.providers),
            capabilities: Some(beat.capabilities),
            capacity: (!beat.capacity.is_null()).then_some(beat.capacity),
            last_heartbeat: now,
            created_at: now,
            updated_at: now,
        };
        let record = store.upsert_worker(record).await?;
        let heard_at = self.clock.boot();
        let overtaken = {
            let mut known = self.known();
            let overtaken = known.deleted.contains_key(&id);
            if !overtaken {
                known.remember(record, heard_at);
            }
            overtaken
        };
        self.heard.notify_waiters();
        if overtaken {
            store.delete_worker(id).await?;
        }
        Ok(())
    }

    /// Folds in what other control planes wrote.
    pub async fn refresh(&self, store: &dyn Store) -> Result<Vec<WorkerRecord>, StoreError> {
        let began = self.clock.boot();
        let rows = store.workers().await?;
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let mut known = self.known();
        for row in &rows {
            let same = known
                .workers
                .get(&row.id)
                .is_some_and(|e| e.record.last_heartbeat >= row.last_heartbeat);
            if !same && !known.deleted.contains_key(&row.id) {
                let age = wall.since(row.last_heartbeat);
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                let heard = BootTime::from_nanos(boot.nanos().saturating_sub(age));
                known.remember(row.clone(), heard);
            }
        }
        // One that was heard while the store was read may be missing from what it said.
        known.workers.retain(|id, e| e.heard_at >= began || rows.iter().any(|r| r.id == *id));
        Ok(rows)
    }

    /// Takes a seat on the best worker.
    pub fn place(self: &Arc<Self>, demand: Demand<'_>, links: &Links) -> Result<Seat, NoPlace> {
        let mut known = self.known();
        let worker_id = self.choice(&known, demand, links)?;
        *known.active.entry(worker_id.clone()).or_default() += 1;
        known.seat_moves += 1;
        let preview_domain = known
            .workers
            .get(&worker_id)
            .and_then(|e| e.record.capacity.as_ref()?.get("preview_domain")?.as_str())
            .filter(|d| !d.is_empty())
            .map(str::to_owned);
        Ok(Seat { registry: self.clone(), worker_id, preview_domain, kept: false })
    }

    /// Whether `place` would find one.
    pub fn has_place(&self, demand: Demand<'_>, links: &Links) -> Result<(), NoPlace> {
        self.choice(&self.known(), demand, links).map(|_| ())
    }

    fn choice(
        &self,
        known: &Known,
        demand: Demand<'_>,
        links: &Links,
    ) -> Result<WorkerId, NoPlace> {
        let now = self.clock.boot();
        let views = known.workers.values().map(|e| View {
            id: &e.record.id,
            online: e.record.status.eq_ignore_ascii_case("online"),
            fresh: freshness(&e.record, now.since(e.heard_at)) == Freshness::Fresh,
            reachable: links.has(&e.record.id),
            providers: e.record.providers.as_deref(),
            active: known.active.get(&e.record.id).copied().unwrap_or(0),
            max_sandboxes: capacity(&e.record),
        });
        choose(demand, views).cloned()
    }

    pub fn release(&self, worker: &WorkerId) {
        let mut known = self.known();
        known.seat_moves += 1;
        if let Some(active) = known.active.get_mut(worker) {
            *active = active.saturating_sub(1);
        }
    }

    /// Moves with every seat taken or freed; for [`Self::recount`].
    pub fn seat_moves(&self) -> u64 {
        self.known().seat_moves
    }

    /// What a count of the worker's records says, unless seats moved since it was begun.
    pub fn recount(&self, worker: &WorkerId, active: u64, seat_moves: u64) {
        let mut known = self.known();
        if known.seat_moves == seat_moves {
            known.active.insert(worker.clone(), active);
        }
    }

    /// The registered spelling of a provider that some worker has, or had.
    pub fn provider(&self, name: &str) -> Option<String> {
        let known = self.known();
        let spelt = known.providers.iter().find(|p| p.eq_ignore_ascii_case(name)).cloned();
        // A worker that lists none takes any: then the name is the worker's to judge.
        let any = |e: &Entry| e.record.providers.as_ref().is_none_or(|p| p.is_empty());
        spelt.or_else(|| known.workers.values().any(any).then(|| name.to_owned()))
    }

    /// How fresh a worker is; `None` if it is not registered.
    pub fn freshness(&self, id: &WorkerId) -> Option<Freshness> {
        let known = self.known();
        let entry = known.workers.get(id)?;
        Some(freshness(&entry.record, self.clock.boot().since(entry.heard_at)))
    }

    /// Returns when a worker may be given sandboxes.
    pub async fn is_fresh(&self, id: &WorkerId) {
        loop {
            let mut heard = pin!(self.heard.notified());
            // Before the look, so that no heartbeat slips in between.
            heard.as_mut().enable();
            if self.freshness(id) == Some(Freshness::Fresh) {
                return;
            }
            heard.await;
        }
    }

    pub fn is_offline(&self, id: &WorkerId) -> bool {
        self.freshness(id) == Some(Freshness::Offline)
    }

    /// Workers whose freshness is another than at the last call.
    pub fn turned(&self) -> Vec<(WorkerId, Freshness)> {
        let now = self.clock.boot();
        let mut turned = Vec::new();
        for (id, entry) in &mut self.known().workers {
            let fresh = freshness(&entry.record, now.since(entry.heard_at));
            if fresh != entry.said {
                entry.said = fresh;
                turned.push((id.clone(), fresh));
            }
        }
        turned
    }

    /// Keeps a worker from registering for a while. Before its row goes, so that no heartbeat
    /// slips in between.
    pub fn keep_away(&self, id: &WorkerId) {
        let now = self.clock.boot();
        let mut known = self.known();
        known.deleted.retain(|_, since| now.since(*since) < KEPT_AWAY);
        known.deleted.insert(id.clone(), now);
        known.workers.remove(id);
    }

    pub fn let_back(&self, id: &WorkerId) {
        self.known().deleted.remove(id);
    }

    fn kept_away(&self, id: &WorkerId) -> bool {
        let now = self.clock.boot();
        let mut known = self.known();
        known.deleted.retain(|_, since| now.since(*since) < KEPT_AWAY);
        known.deleted.contains_key(id)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Known {
    fn remember(&mut self, record: WorkerRecord, heard_at: BootTime) {
        self.providers.extend(record.providers.iter().flatten().cloned());
        let said = self.workers.get(&record.id).map_or(Freshness::Fresh, |e| e.said);
        self.workers.insert(record.id.clone(), Entry { record, heard_at, said });
    }
}

fn capacity(record: &WorkerRecord) -> u64 {
    let max = record.capacity.as_ref().and_then(|c| c.get("max_sandboxes")?.as_u64());
    max.unwrap_or(0)
}
