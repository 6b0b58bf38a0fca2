//! What a worker is told when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::worker::{BoxFuture, ControlLink, Heartbeat, SandboxEnded};
use providers::Provider;
use types::{ErrorCode, Fault, SandboxId, WorkerId};

use crate::pool::WarmConfig;

/// How one worker is set up. [`WorkerConfig::new`] fills in what rarely differs.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub id: WorkerId,
    /// `<data_dir>/workers/<id>`, or the instance folder of a one-shot run. Made if missing.
    pub dir: PathBuf,
    /// Sandboxes that carry another one are never touched while they live.
    pub installation_id: String,
    pub hostname: String,
    pub heartbeat_interval: Duration,
    /// Free-form, for the heartbeat.
    pub capacity: serde_json::Value,
    /// How long after a sandbox's expiry its agent ends by itself, if this worker does not end it.
    pub expiry_grace: Duration,
    /// How long an unused connection to an agent stays open.
    pub guest_idle: Duration,
    /// Folders of ended sandboxes that are kept for new ones.
    pub spare_folders: usize,
    /// Sandboxes that are made before anybody asks.
    pub warm: WarmConfig,
    /// Sandboxes end with this process (`stacyvm run`).
    pub tied: bool,
    /// The host's boot id; `None`: the kernel's.
    pub boot_id: Option<String>,
}

impl WorkerConfig {
    pub fn new(id: WorkerId, dir: PathBuf, installation_id: impl Into<String>) -> Self {
        Self {
            id,
            dir,
            installation_id: installation_id.into(),
            hostname: String::new(),
            heartbeat_interval: Duration::from_secs(30),
            capacity: serde_json::Value::Null,
            expiry_grace: Duration::from_secs(2),
            guest_idle: Duration::from_secs(30),
            spare_folders: 64,
            warm: WarmConfig::default(),
            tied: false,
            boot_id: None,
        }
    }
}

/// The providers of a worker, by name, and the one that is meant when none is named.
#[derive(Clone)]
pub struct Providers {
    by_name: BTreeMap<String, Arc<dyn Provider>>,
    default: String,
}

impl Providers {
    /// Takes each under its own name.
    pub fn new(list: Vec<Arc<dyn Provider>>, default: impl Into<String>) -> Self {
        let by_name = list.into_iter().map(|p| (p.name().to_owned(), p)).collect();
        Self { by_name, default: default.into() }
    }

    /// The provider of that name; the default one for an empty name.
    pub(crate) fn find(&self, name: &str) -> Result<&Arc<dyn Provider>, Fault> {
        let name = if name.is_empty() { &self.default } else { name };
        self.by_name.get(name).ok_or_else(|| {
            Fault::new(ErrorCode::NotFound, format!("this worker has no provider {name}"))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<dyn Provider>)> {
        self.by_name.iter()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    pub(crate) fn default_name(&self) -> &str {
        &self.default
    }
}

/// Nobody to report to: a worker that lives as long as one command.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoControl;

impl ControlLink for NoControl {
    fn heartbeat(&self, _beat: Heartbeat) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ending(&self, _sandbox_id: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn report(&self, _ended: Vec<SandboxEnded>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
