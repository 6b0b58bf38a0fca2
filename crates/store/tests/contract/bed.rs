//! A place where a store can be opened again and again, and sandboxes to put into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use store::{Change, SqliteOptions, SqliteStore, Store};
use types::clock::ManualClock;
use types::{OwnerId, Sandbox, SandboxId, SandboxSize, SandboxState, Timestamp, WorkerId};

pub trait Bed: Send + Sync {
    /// The same database each time; close the one before.
    fn open(&self) -> Arc<dyn Store>;
    /// What the store takes for now.
    fn clock(&self) -> &ManualClock;
}

pub struct SqliteBed {
    pub dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
}

impl SqliteBed {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, clock: Arc::new(ManualClock::new(at(0))) }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("stacyvm.db")
    }
}

impl Bed for SqliteBed {
    fn open(&self) -> Arc<dyn Store> {
        let options = SqliteOptions { clock: self.clock.clone(), ..SqliteOptions::default() };
        SqliteStore::open(&self.path(), options).unwrap()
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }
}

/// Seconds after some day, with a fraction that must survive.
pub fn at(seconds: u64) -> Timestamp {
    let day = Timestamp::from_unix_nanos(1_770_000_000_123_456_789);
    day.saturating_add(Duration::from_secs(seconds))
}

pub fn id(number: u64) -> SandboxId {
    SandboxId::parse(format!("sb-{number:020}")).unwrap()
}

pub fn owner(name: &str) -> Option<OwnerId> {
    Some(OwnerId::parse(name).unwrap())
}

/// A running, answered one; tests change what they mean.
pub fn sandbox(number: u64) -> Sandbox {
    Sandbox {
        id: id(number),
        state: SandboxState::Running,
        provider: "mock".into(),
        image: "host".into(),
        size: SandboxSize { memory_mb: 512, vcpus: 2, disk_size_mb: 1024 },
        owner_id: None,
        tenant_id: None,
        vm_id: None,
        worker_id: WorkerId::parse("local").unwrap(),
        generation: 1,
        created_at: at(0),
        expires_at: at(1800),
        metadata: Default::default(),
        preview_domain: None,
        ended_reason: None,
        answered: true,
        name: None,
        keyed: false,
    }
}

pub fn to(state: SandboxState) -> Change {
    Change { state: Some(state), ..Change::default() }
}

pub fn ids(sandboxes: &[Sandbox]) -> Vec<SandboxId> {
    sandboxes.iter().map(|s| s.id.clone()).collect()
}

/// A seeded generator (xorshift64*), so that a walk that failed can be walked again.
pub struct Walk(pub u64);

impl Walk {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
