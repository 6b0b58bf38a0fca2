//! The interface that every database implements, and that the contract suite checks.

use std::future::Future;
use std::pin::Pin;

use types::{
    EndedReason, ExecId, OwnerId, Sandbox, SandboxId, SandboxName, SandboxState, TenantId,
    Timestamp, WorkerId,
};

use crate::{ExecEnd, ExecOutput, ExecPage, ExecRecord, StoreError};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Bounds that an insert must hold to, counted in the same transaction. 0: unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub max_sandboxes: u64,
    pub max_per_owner: u64,
}

/// Sandboxes that are not destroyed. Costs the same at any number of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    /// Of the owner that was asked for; 0 without one.
    pub owner: u64,
}

/// A key that a caller gave to a request to spawn, so that it may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnKey {
    /// Stands for the caller and the key.
    pub key: String,
    /// Stands for what was asked for.
    pub request: String,
    /// Keys stored before this are forgotten.
    pub since: Timestamp,
}

/// A name in its owner's room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameOf {
    pub name: SandboxName,
    pub owner: Option<OwnerId>,
    pub tenant: Option<TenantId>,
}

impl NameOf {
    pub(crate) fn of(sandbox: &Sandbox) -> Option<Self> {
        sandbox.name.clone().map(|name| Self {
            name,
            owner: sandbox.owner_id.clone(),
            tenant: sandbox.tenant_id.clone(),
        })
    }
}

/// A sandbox that answers a spawn, since an earlier one made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub sandbox: Sandbox,
    /// By its name; else its key, whose spawn made it.
    pub found: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsertOutcome {
    Inserted,
    /// The id is taken (also by a destroyed one).
    Duplicate,
    /// `max_sandboxes` would be exceeded.
    Full(Counts),
    /// `max_per_owner` would be exceeded.
    OwnerFull(Counts),
    /// The key is known, or a living sandbox of that owner has the name.
    Earlier(Box<Earlier>),
    /// The key is known from another request.
    KeyReused,
}

/// What to change of a sandbox; absent fields stay. The state only moves as
/// [`SandboxState::may_become`] allows, and a set `ended_reason` is never overwritten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub state: Option<SandboxState>,
    /// Only if the current state is one of these (empty: any).
    pub only_from: Vec<SandboxState>,
    pub ended_reason: Option<EndedReason>,
    pub vm_id: Option<String>,
    pub answered: Option<bool>,
    pub expires_at: Option<Timestamp>,
    /// Only if the record's generation is still this one.
    pub generation: Option<u64>,
}

/// Which sandboxes to list. All that is said has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    pub tenant: Option<TenantId>,
    pub provider: Option<String>,
    /// In one of these states, as stored; empty: all but `Destroyed`, which has to be asked for
    /// alone.
    pub states: Vec<SandboxState>,
    /// Entries of its metadata.
    pub labels: Vec<(String, String)>,
    /// Newest first, starting after this one.
    pub after: Option<(Timestamp, SandboxId)>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

impl ListFilter {
    /// Whether a sandbox is one that is meant, wherever the list begins.
    pub fn lets_through(&self, sandbox: &Sandbox) -> bool {
        let state = match &self.states[..] {
            [] => sandbox.state != SandboxState::Destroyed,
            states => states.contains(&sandbox.state),
        };
        state
            && (self.tenant.is_none() || self.tenant == sandbox.tenant_id)
            && self.provider.as_ref().is_none_or(|p| *p == sandbox.provider)
            && self.labels.iter().all(|(key, value)| sandbox.metadata.get(key) == Some(value))
    }
}

/// A row of the worker registry.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    pub id: WorkerId,
    pub hostname: String,
    pub status: String,
    pub providers: Option<Vec<String>>,
    pub capabilities: Option<Vec<String>>,
    pub capacity: Option<serde_json::Value>,
    pub last_heartbeat: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Durable memory. A call that returned Ok survives a crash of the process.
pub trait Store: Send + Sync {
    /// Made once, at the first opening; names this installation for good.
    fn installation_id(&self) -> &str;

    /// A small write and read: whether it works, for readiness.
    fn check(&self) -> Answer<'_, ()>;

    /// Adds a sandbox, unless a limit forbids it or an earlier spawn is the answer. Looking,
    /// counting and inserting are one transaction. The name of one that is dead or expired is
    /// free, and so is a key whose spawn failed. `sandbox.keyed` is not read.
    fn insert_sandbox(
        &self,
        sandbox: Sandbox,
        limits: Limits,
        key: Option<SpawnKey>,
    ) -> Answer<'_, InsertOutcome>;

    /// Whether an insert would now be answered `Earlier` or `KeyReused`. Changes nothing.
    fn earlier_spawn(
        &self,
        key: Option<SpawnKey>,
        name: Option<NameOf>,
    ) -> Answer<'_, Option<InsertOutcome>>;

    /// One sandbox, also a destroyed one while it is kept.
    fn sandbox(&self, id: SandboxId) -> Answer<'_, Option<Sandbox>>;

    /// Sandboxes, newest first, and by id among equals.
    fn sandboxes(&self, filter: ListFilter) -> Answer<'_, Vec<Sandbox>>;

    /// Changes one sandbox and returns it as it then is; `None` if there is none, or a condition
    /// of the change does not hold.
    fn change_sandbox(&self, id: SandboxId, change: Change) -> Answer<'_, Option<Sandbox>>;

    /// Sandboxes that are not destroyed nor being destroyed and whose time is up, oldest first.
    fn due_sandboxes(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>>;

    /// Sandboxes in state `Destroying`, and those in `Creating` or not answered that were created
    /// before `before`: work that a crash or a lost worker left undone.
    fn unfinished_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<Sandbox>>;

    /// Every sandbox of a worker that is not destroyed. For adoption, not for requests.
    fn sandboxes_of_worker(&self, worker: WorkerId) -> Answer<'_, Vec<Sandbox>>;

    /// By counters, not by scans.
    fn counts(&self, owner: Option<OwnerId>) -> Answer<'_, Counts>;

    /// Not destroyed, by provider name; by counters.
    fn count_by_provider(&self, provider: String) -> Answer<'_, u64>;

    /// Forgets destroyed sandboxes that ended before `before` and that no key remembers, at most
    /// `limit` of them. Returns how many went.
    fn purge_sandboxes(&self, before: Timestamp, limit: u32) -> Answer<'_, u64>;

    /// Forgets keys that were stored before `before`, at most `limit` of them. Returns how many
    /// went.
    fn purge_spawn_keys(&self, before: Timestamp, limit: u32) -> Answer<'_, u64>;

    /// Adds the record of a command. `Some`: the id is taken in that sandbox, by this one.
    fn insert_exec(&self, exec: ExecRecord) -> Answer<'_, Option<ExecRecord>>;

    fn exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecRecord>>;

    /// Adds plain records, or ends those that are known; an end that is known stays. Of each of
    /// their sandboxes the oldest plain ones that have ended go, until `keep` are left; 0: none go.
    /// All or nothing, and the same again changes nothing.
    fn record_execs(&self, records: Vec<ExecRecord>, keep: u64) -> Answer<'_, ()>;

    /// Commands of a sandbox, newest first, and by id, descending, among equals.
    fn execs(&self, of: SandboxId, page: ExecPage) -> Answer<'_, Vec<ExecRecord>>;

    /// Every command that has not ended. For the start, not for requests.
    fn running_execs(&self) -> Answer<'_, Vec<ExecRecord>>;

    /// That it runs; `false` if that was known.
    fn exec_started(&self, of: SandboxId, exec: ExecId, at: Timestamp) -> Answer<'_, bool>;

    /// How it ended, unless that is known, and its last output. When its sandbox is destroyed that
    /// is its end, without a call.
    fn end_exec(
        &self,
        of: SandboxId,
        exec: ExecId,
        end: Option<ExecEnd>,
        output: Option<ExecOutput>,
    ) -> Answer<'_, ()>;

    fn exec_output(&self, of: SandboxId, exec: ExecId) -> Answer<'_, Option<ExecOutput>>;

    /// Forgets one that never started.
    fn forget_exec(&self, of: SandboxId, exec: ExecId) -> Answer<'_, bool>;

    /// Forgets commands that ended before `before`, at most `limit` of them, with their outputs.
    fn purge_execs(&self, before: Timestamp, limit: u32) -> Answer<'_, u64>;

    /// Inserts or updates by id; `created_at` of an existing row stays.
    fn upsert_worker(&self, worker: WorkerRecord) -> Answer<'_, WorkerRecord>;

    fn worker(&self, id: WorkerId) -> Answer<'_, Option<WorkerRecord>>;

    /// By id, ascending.
    fn workers(&self) -> Answer<'_, Vec<WorkerRecord>>;

    /// Whether there was one.
    fn delete_worker(&self, id: WorkerId) -> Answer<'_, bool>;

    /// Finishes what was accepted and closes. Later calls answer `Busy`.
    fn close(&self) -> BoxFuture<'_, ()>;
}
