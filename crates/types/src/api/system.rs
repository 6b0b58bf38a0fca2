//! Bodies of providers, workers and the health family.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An item of `GET /providers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderHealth {
    pub name: String,
    pub healthy: bool,
    pub default: bool,
    pub latency_ms: u64,
    pub last_checked: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub capabilities: Vec<String>,
}

/// `GET /providers/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderDetail {
    pub name: String,
    pub healthy: bool,
    pub default: bool,
    pub sandbox_count: u64,
    pub health: ProviderHealth,
    pub config: std::collections::BTreeMap<String, String>,
}

/// A worker. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub id: String,
    pub hostname: String,
    pub status: String,
    #[serde(default)]
    pub providers: Option<Vec<String>>,
    #[serde(default)]
    pub capabilities: Option<Vec<String>>,
    #[serde(default)]
    pub capacity: Option<serde_json::Value>,
    pub last_heartbeat: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub stale: bool,
}

/// `/health` and `/live`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub status: String,
    pub version: String,
    pub uptime: String,
}

/// `/ready`: also the body of its 503.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub status: String,
    pub version: String,
    pub uptime: String,
    pub providers: Vec<ProviderHealth>,
    pub ready_providers: u64,
    pub total_providers: u64,
}

/// `GET /pool/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Whether sandboxes share machines: they never do.
    pub enabled: bool,
    /// Sandboxes that are kept ready; absent where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmPools>,
}

/// All warm pools together, and each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WarmPools {
    pub desired: u64,
    pub ready: u64,
    pub taken: u64,
    pub memory_bytes: u64,
    pub pools: Vec<WarmPool>,
}

/// One warm pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WarmPool {
    pub provider: String,
    pub image: String,
    pub memory_mb: u32,
    pub vcpus: u32,
    pub disk_size_mb: u32,
    /// How many are kept.
    pub desired: u64,
    /// How many wait to be handed out.
    pub ready: u64,
    /// Handed out since the worker started.
    pub taken: u64,
    /// What those that wait hold of the host's memory.
    pub memory_bytes: u64,
    /// One that waited so long is replaced.
    pub max_age: String,
    /// Why it is not full, where that does not pass by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up: Option<String>,
}
