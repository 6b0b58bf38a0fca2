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
