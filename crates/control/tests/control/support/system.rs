//! The assembled system.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::{Context, Control, ControlConfig, Defaults, SpawnInput};
use protocol::worker::{ControlLink, Heartbeat, ProviderReport};
use store::Store;
use types::clock::{Clock, ManualClock};
use types::{ErrorCode, Fault, Sandbox, SandboxId, SandboxSize, SandboxState, Timestamp, WorkerId};

use super::{FakeWorker, MemoryStore};

pub struct System {
    pub control: Control,
    pub store: Arc<MemoryStore>,
    pub worker: Arc<FakeWorker>,
    pub clock: Arc<ManualClock>,
    pub uplink: Arc<dyn ControlLink>,
    pub ctx: Context,
}

pub fn config() -> ControlConfig {
    ControlConfig {
        defaults: Defaults {
            provider: "mock".to_owned(),
            image: "host".to_owned(),
            ttl: Duration::from_secs(1800),
            max_ttl: Duration::from_secs(24 * 3600),
            memory_mb: 1024,
            vcpus: 1,
            disk_size_mb: 2048,
            default_exec_timeout: Duration::ZERO,
            max_exec_timeout: Duration::from_secs(600),
            max_sandboxes: 0,
            max_sandboxes_per_owner: 0,
        },
        max_output_bytes: 16,
        preview_domain: Some("localhost".to_owned()),
        record_retention: Duration::from_secs(3600),
        history: Default::default(),
        images: Default::default(),
        local_worker: WorkerId::parse("local").unwrap(),
    }
}

impl System {
    /// Started, with one worker that has reported.
    pub async fn start() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: ControlConfig) -> Self {
        let system = Self::unstarted(config, Arc::default(), Arc::default());
        system.heartbeat("local").await;
        system.control.start().await.unwrap();
        system
    }

    /// As after a restart: a store and a worker that may hold something already.
    pub fn unstarted(
        config: ControlConfig,
        store: Arc<MemoryStore>,
        worker: Arc<FakeWorker>,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(now()));
        let store_dyn: Arc<dyn Store> = store.clone();
        let control = Control::new(config, store_dyn, clock.clone());
        worker.state().providers = vec![report("mock", true)];
        control.attach_worker(WorkerId::parse("local").unwrap(), worker.clone());
        let uplink = control.control_link();
        Self { control, store, worker, clock, uplink, ctx: Context::default() }
    }

    pub async fn heartbeat(&self, worker: &str) {
        self.uplink.heartbeat(beat(worker, serde_json::Value::Null)).await.unwrap();
    }

    pub async fn spawn(&self) -> Sandbox {
        self.control.spawn(&self.ctx, SpawnInput::default()).await.unwrap()
    }

    /// Nothing lives any more, neither in the store nor on the worker.
    pub async fn is_clean(&self) {
        wait_for("a clean slate", || {
            let rows = self.store.live();
            let held: Vec<_> = self.worker.state().sandboxes.keys().cloned().collect();
            let clean = rows.is_empty() && held.is_empty();
            if clean { Ok(()) } else { Err(format!("rows {rows:?}, worker {held:?}")) }
        })
        .await;
    }

    /// A record of `state` that the worker holds, too.
    pub fn plant(&self, name: &str, state: SandboxState) -> SandboxId {
        let row = Sandbox { state, ..row(name) };
        let id = row.id.clone();
        self.worker.hold(fact(&row));
        self.store.put(row);
        id
    }

    pub fn clock_past(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.clock.wall().unix_nanos() - 1)
    }

    pub fn later(&self, by: Duration) -> Timestamp {
        self.clock.wall().saturating_add(by)
    }
}

pub fn now() -> Timestamp {
    Timestamp::parse("2026-02-01T10:00:00Z").unwrap()
}

pub fn fact(row: &Sandbox) -> protocol::worker::SandboxFact {
    protocol::worker::SandboxFact {
        sandbox_id: row.id.clone(),
        provider: row.provider.clone(),
        state: SandboxState::Running,
        reason: None,
        generation: row.generation,
        expires_at: row.expires_at,
    }
}

pub fn beat(worker: &str, capacity: serde_json::Value) -> Heartbeat {
    Heartbeat {
        worker_id: WorkerId::parse(worker).unwrap(),
        hostname: "host".to_owned(),
        status: "online".to_owned(),
        providers: vec!["mock".to_owned()],
        capabilities: Vec::new(),
        capacity,
    }
}

pub fn report(name: &str, healthy: bool) -> ProviderReport {
    ProviderReport {
        name: name.to_owned(),
        healthy,
        default: true,
        latency: Duration::ZERO,
        checked_at: now(),
        error: None,
        capabilities: Vec::new(),
        config: BTreeMap::new(),
    }
}

pub fn row(name: &str) -> Sandbox {
    Sandbox {
        id: SandboxId::parse(name).unwrap(),
        state: SandboxState::Running,
        provider: "mock".to_owned(),
        image: "host".to_owned(),
        size: SandboxSize { memory_mb: 1, vcpus: 1, disk_size_mb: 1 },
        owner_id: None,
        tenant_id: None,
        vm_id: None,
        worker_id: WorkerId::parse("local").unwrap(),
        generation: 1,
        created_at: now(),
        expires_at: now().saturating_add(Duration::from_secs(600)),
        metadata: BTreeMap::new(),
        preview_domain: None,
        ended_reason: None,
        answered: true,
        name: None,
        keyed: false,
    }
}

pub fn input() -> SpawnInput {
    SpawnInput::default()
}

pub fn code<T>(result: Result<T, Fault>) -> ErrorCode {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(fault) => fault.code,
    }
}

/// Polls until the condition holds; reports the last thing it saw.
pub async fn wait_for<E: std::fmt::Display>(what: &str, condition: impl Fn() -> Result<(), E>) {
    let mut last = String::new();
    // Under a paused clock these are no real waits.
    for _ in 0..6000 {
        match condition() {
            Ok(()) => return,
            Err(seen) => last = seen.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: last seen {last}");
}

pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    wait_for(what, || if condition() { Ok(()) } else { Err("not yet") }).await;
}
