//! A store in memory with the semantics of the interface, and faults by operation.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use store::{
    BoxFuture, Change, Counts, Earlier, ExecEnd, ExecOutput, ExecPage, ExecRecord, InsertOutcome,
    Limits, ListFilter, NameOf, SpawnKey, Store, StoreError, WorkerRecord,
};
use types::{
    EndedReason, ExecId, OwnerId, Sandbox, SandboxId, SandboxName, SandboxState, Timestamp,
    WorkerId,
};

/// What the next call of an operation does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAct {
    Busy,
    Full,
    Broken,
    /// Does its work and then says that it failed.
    BrokenAfter,
    /// Only for an insert: the id is taken.
    Duplicate,
}

#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub rows: BTreeMap<SandboxId, Sandbox>,
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
    pub keys: HashMap<String, (String, SandboxId)>,
    pub execs: BTreeMap<(SandboxId, ExecId), ExecRecord>,
    pub outputs: BTreeMap<(SandboxId, ExecId), ExecOutput>,
    pub acts: HashMap<&'static str, VecDeque<StoreAct>>,
    pub always: HashMap<&'static str, StoreAct>,
    pub calls: Vec<&'static str>,
    pub most_live: usize,
}

/// What a driver would say; none of it may reach a caller.
const PRIVATE: &str = "SQLITE_BUSY: UPDATE sandboxes SET … in /var/lib/stacyvm/stacyvm.db";

impl MemoryStore {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn next(&self, op: &'static str, act: StoreAct) {
        self.state().acts.entry(op).or_default().push_back(act);
    }

    pub fn row(&self, id: &SandboxId) -> Sandbox {
        self.state().rows[id].clone()
    }

    pub fn put(&self, row: Sandbox) {
        self.state().rows.insert(row.id.clone(), row);
    }

    pub fn live(&self) -> Vec<Sandbox> {
        let state = self.state();
        state.rows.values().filter(|r| !r.state.is_final()).cloned().collect()
    }

    pub fn writes(&self) -> usize {
        let state = self.state();
        state.calls.iter().filter(|c| matches!(**c, "insert" | "change")).count()
    }

    /// Yields once, as a real one would, then does the work or what it was told.
    fn call<'a, T: Send + 'a>(
        &'a self,
        op: &'static str,
        work: impl FnOnce(&mut State, Option<StoreAct>) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut state = self.state();
            state.calls.push(op);
            let act = state.acts.get_mut(op).and_then(VecDeque::pop_front);
            let act = act.or_else(|| state.always.get(op).copied());
            match act {
                Some(StoreAct::Busy) => Err(StoreError::Busy(PRIVATE.into())),
                Some(StoreAct::Full) => Err(StoreError::Full(PRIVATE.into())),
                Some(StoreAct::Broken) => Err(StoreError::Broken(PRIVATE.into())),
                Some(StoreAct::BrokenAfter) => {
                    work(&mut state, None);
                    Err(StoreError::Broken(PRIVATE.into()))
                }
                Some(StoreAct::Duplicate) | None => {
                    let answer = work(&mut state, act);
                    let live = state.rows.values().filter(|r| !r.state.is_final()).count();
                    state.most_live = state.most_live.max(live);
                    Ok(answer)
                }
            }
        })
    }
}

fn counts(state: &State, owner: Option<&OwnerId>) -> Counts {
    let live = || state.rows.values().filter(|r| !r.state.is_final());
    let owned = |o: &OwnerId| live().filter(|r| r.owner_id.as_ref() == Some(o)).count() as u64;
    Counts { total: live().count() as u64, owner: owner.map_or(0, owned) }
}

fn apply(change: &Change, row: &mut Sandbox) -> bool {
    let next = change.state.unwrap_or(row.state);
    let allowed = !row.state.is_final()
        && (next == row.state || row.state.may_become(next))
        && (change.only_from.is_empty() || change.only_from.contains(&row.state))
        && change.generation.is_none_or(|g| g == row.generation);
    if allowed {
        row.state = next;
        row.ended_reason = row.ended_reason.or(change.ended_reason);
        row.vm_id = change.vm_id.clone().or(row.vm_id.take());
        row.answered = change.answered.unwrap_or(row.answered);
        row.expires_at = change.expires_at.unwrap_or(row.expires_at);
    }
    allowed
}

/// Names are of no owner here: whose they are is the store contract's matter.
fn earlier(
    state: &State,
    key: Option<&SpawnKey>,
    name: Option<&SandboxName>,
) -> Option<InsertOutcome> {
    let known = key.and_then(|k| state.keys.get(&k.key).map(|(request, id)| (k, request, id)));
    if let Some((key, request, id)) = known {
        let sandbox = state.rows[id].clone();
        let failed = [Some(EndedReason::SpawnFailed), Some(EndedReason::Unanswered)];
        if !failed.contains(&sandbox.ended_reason) {
            let earlier = InsertOutcome::Earlier(Box::new(Earlier { sandbox, found: false }));
            return Some(if *request == key.request { earlier } else { InsertOutcome::KeyReused });
        }
    }
    let holds = |r: &&Sandbox| {
        let usable = [SandboxState::Creating, SandboxState::Running, SandboxState::Unhealthy];
        usable.contains(&r.state) && r.name.as_ref() == name
    };
    let holder = name.and_then(|_| state.rows.values().find(holds)).cloned();
    holder.map(|sandbox| InsertOutcome::Earlier(Box::new(Earlier { sandbox, found: true })))
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Store for MemoryStore {
    fn installation_id(&self) -> &str {
        "memory"
    }

    fn check(&self) -> Answer<'_, ()> {
        self.call("check", |_, _| ())
    }

    fn insert_sandbox(
        &self,
        mut sandbox: Sandbox,
        limits: Limits,
        key: Option<SpawnKey>,
    ) -> Answer<'_, InsertOutcome> {
        self.call("insert", move |state, act| {
            if let Some(before) = earlier(state, key.as_ref(), sandbox.name.as_ref()) {
                return before;
            }
            let counts = counts(state, sandbox.owner_id.as_ref());
            if act == Some(StoreAct::Duplicate) || state.rows.contains_key(&sandbox.id) {
                return InsertOutcome::Duplicate;
            }
            if limits.max_sandboxes != 0 && counts.total >= limits.max_sandboxes {
                return InsertOutcome::Full(counts);
            }
            let owned = sandbox.owner_id.is_some();
            if owned && limits.max_per_owner != 0 && counts.owner >= limits.max_per_owner {
                return InsertOutcome::OwnerFull(counts);
            }
            sandbox.keyed = key.is_some();
            if let Some(key) = key {
                state.keys.insert(key.key, (key.request, sandbox.id.clone()));
            }
            state.rows.insert(sandbox.id.clone(), sandbox);
            InsertOutcome::Inserted
        })
    }

    fn earlier_spawn(
        &self,
        key: Option<SpawnKey>,
        name: Option<NameOf>,
    ) -> Answer<'_, Option<InsertOutcome>> {
        self.call("earlier", move |state, _| {
            earlier(state, key.as_ref(), name.as_ref().map(|n| &n.name))
        })
    }

    fn sandbox(&self, id: SandboxId) -> Answer<'_, Option<Sandbox>> {
        self.call("get", move |state, _| state.rows.get(&id).cloned())
    }

    fn sandboxes(&self, filter: ListFilter) -> Answer<'_, Vec<Sandbox>> {
        self.call("list", move |state, _| {
            let seen = |r: &&Sandbox| filter.lets_through(r);
            let mut found: Vec<_> = state.rows.values().filter(seen).cloned().collect();
            // By id among equals, since the rows are.
            found.sort_by_key(|r| std::cmp::Reverse(r.created_at));
            if let Some((time, id)) = &filter.after {
                found.retain(|r| r.created_at < *time || (r.created_at == *time && r.id > *id));
            }
            found.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
            found
        })
    }

    fn change_sandbox(&self, id: SandboxId, change: Change) -> Answer<'_, Option<Sandbox>> {
        self.call("change", move |state, _| {
            let row = state.rows.get_mut(&id)?;
            apply(&change, row).then(|| row.clone())
        })
    }

    fn due_sandboxes(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>> {
        self.call("due", move |state, _| {
            let due = |r: &&Sandbox| {
                !matches!(r.state, SandboxState::Destroying | SandboxState::Destroyed)
                    && r.expires_at <= now
            };
            let mut found: Vec<_> = state.rows.values().filter(due).cloned().collect();
            found.sort_by_key(|r| r.expires_at);
            found.truncate(limit as usize);
            found
        })
    }

    fn unfinished_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>> {
        self.call("unfinished", move |state, _| {
            let undone = |r: &&Sandbox| match r.state {
                SandboxState::Destroying => true,
                SandboxState::Destroyed => false,
                SandboxState::Creating => r.created_at < before,
                SandboxState::Running
                | SandboxState::Unhealthy
                | SandboxState::Expired
                | SandboxState::Error => !r.answered && r.created_at < before,
            };
            state.rows.values().filter(undone).take(limit as usize).cloned().collect()
        })
    }

    fn sandboxes_of_worker(&self, worker: WorkerId) -> Answer<'_, Vec<Sandbox>> {
        self.call("of_worker", move |state, _| {
            let held = |r: &&Sandbox| !r.state.is_final() && r.worker_id == worker;
            state.rows.values().filter(held).cloned().collect()
        })
    }

    fn counts(&self, owner: Option<OwnerId>) -> Answer<'_, Counts> {
        self.call("counts", move |state, _| counts(state, owner.as_ref()))
    }

    fn count_by_provider(&self, provider: String) -> Answer<'_, u64> {
        self.call("count_by_provider", move |state, _| {
            let it = |r: &&Sandbox| !r.state.is_final() && r.provider == provider;
            state.rows.values().filter(it).count() as u64
        })
    }

    fn purge_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, u64> {
        self.call("purge", move |state, _| {
            let old = |r: &&Sandbox| r.state.is_final() && r.expires_at < before;
            let ids: Vec<_> = state.rows.values().filter(old).map(|r| r.id.clone()).collect();
            let ids = &ids[..ids.len().min(limit as usize)];
            ids.iter().filter(|id| state.rows.remove(id).is_some()).count() as u64
        })
    }

    fn purge_spawn_keys(&self, _: Timestamp, _: u32) -> Answer<'_, u64> {
        self.call("purge_keys", |_, _| 0)
    }

    fn insert_exec(&self, exec: ExecRecord) -> Answer<'_, Option<ExecRecord>> {
        self.call("insert_exec", move |state, _| {
            let key = (exec.sandbox_id.clone(), exec.exec_id.clone());
            let known = state.execs.get(&key).cloned();
            state.execs.entry(key).or_insert(exec);
            known
        })
    }

    fn exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecRecord>> {
        self.call("exec", move |state, _| state.execs.get(&(of, exec)).cloned())
    }

    fn record_execs(&self, records: Vec<ExecRecord>, _: u64) -> Answer<'_, ()> {
        self.call("record_execs", move |state, _| {
            for record in records {
                let key = (record.sandbox_id.clone(), record.exec_id.clone());
                let known = state.execs.entry(key).or_insert_with(|| record.clone());
                known.end = known.end.take().or(record.end);
            }
        })
    }

    fn execs(&self, of: SandboxId, page: ExecPage) -> Answer<'_, Vec<ExecRecord>> {
        self.call("execs", move |state, _| {
            let meant = |e: &&ExecRecord| {
                let place = (e.created_at, &e.exec_id);
                let after = page.after.as_ref().map(|(time, id)| (*time, id));
                e.sandbox_id == of
                    && (!page.running || e.end.is_none())
                    && after.is_none_or(|after| place < after)
            };
            let mut found: Vec<_> = state.execs.values().filter(meant).cloned().collect();
            found.sort_by(|a, b| (b.created_at, &b.exec_id).cmp(&(a.created_at, &a.exec_id)));
            found.truncate(page.limit as usize);
            found
        })
    }

    fn running_execs(&self) -> Answer<'_, Vec<ExecRecord>> {
        self.call("running_execs", move |state, _| {
            state.execs.values().filter(|e| e.end.is_none()).cloned().collect()
        })
    }

    fn exec_started(&self, of: SandboxId, exec: ExecId, at: Timestamp) -> Answer<'_, bool> {
        self.call("exec_started", move |state, _| match state.execs.get_mut(&(of, exec)) {
            Some(record) => record.started_at.replace(at).is_none(),
            None => false,
        })
    }

    fn end_exec(
        &self,
        of: SandboxId,
        exec: ExecId,
        end: Option<ExecEnd>,
        output: Option<ExecOutput>,
    ) -> Answer<'_, ()> {
        self.call("end_exec", move |state, _| {
            let key = (of, exec);
            if let Some(record) = state.execs.get_mut(&key) {
                record.end = record.end.take().or(end);
            }
            let held = state.outputs.get(&key).map_or(0, ExecOutput::total);
            if let Some(output) = output.filter(|o| o.total() >= held) {
                state.outputs.insert(key, output);
            }
        })
    }

    fn exec_output(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecOutput>> {
        self.call("exec_output", move |state, _| state.outputs.get(&(of, exec)).cloned())
    }

    fn forget_exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, bool> {
        self.call("forget_exec", move |state, _| state.execs.remove(&(of, exec)).is_some())
    }

    fn purge_execs(&self, _: Timestamp, _: u32) -> Answer<'_, u64> {
        self.call("purge_execs", |_, _| 0)
    }

    fn upsert_worker(&self, mut worker: WorkerRecord) -> Answer<'_, WorkerRecord> {
        self.call("upsert_worker", move |state, _| {
            if let Some(old) = state.workers.get(&worker.id) {
                worker.created_at = old.created_at;
            }
            state.workers.insert(worker.id.clone(), worker.clone());
            worker
        })
    }

    fn worker(&self, id: WorkerId) -> Answer<'_, Option<WorkerRecord>> {
        self.call("worker", move |state, _| state.workers.get(&id).cloned())
    }

    fn workers(&self) -> Answer<'_, Vec<WorkerRecord>> {
        self.call("workers", |state, _| state.workers.values().cloned().collect())
    }

    fn delete_worker(&self, id: WorkerId) -> Answer<'_, bool> {
        self.call("delete_worker", move |state, _| state.workers.remove(&id).is_some())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
