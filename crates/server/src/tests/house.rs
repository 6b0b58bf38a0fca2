//! A server to send requests to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control::{Control, ControlConfig, Defaults};
use protocol::worker::Heartbeat;
use serde_json::Value;
use store::{SqliteOptions, SqliteStore, Store};
use tempfile::TempDir;
use testkit::{Reply, exchange};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::clock::SystemClock;
use types::{Secret, WorkerId};

use super::fake::{Fake, Seen};
use crate::{AuthConfig, Server, ServerConfig};

pub const API: &str = "the-api-key";
pub const ADMIN: &str = "the-admin-key";

pub struct House {
    pub addr: SocketAddr,
    pub seen: Arc<Seen>,
    pub gate: Arc<Semaphore>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<std::io::Result<()>>,
    _dir: TempDir,
}

/// Which keys a server has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys {
    pub api: bool,
    pub admin: bool,
    pub fallback: bool,
}

pub const BOTH: Keys = Keys { api: true, admin: true, fallback: false };
pub const OPEN: Keys = Keys { api: false, admin: false, fallback: false };

pub async fn open(keys: Keys) -> House {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let store: Arc<dyn Store> = SqliteStore::open(&file, SqliteOptions::default()).unwrap();
    let clock = Arc::new(SystemClock);
    let local = WorkerId::parse("w@1").unwrap();
    let control = Control::new(control_config(local.clone()), store, clock.clone());
    let (seen, gate) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(0)));
    let fake = Fake { seen: Arc::clone(&seen), gate: Arc::clone(&gate) };
    control.attach_worker(local.clone(), Arc::new(fake));
    let beat = Heartbeat {
        worker_id: local,
        hostname: "here".into(),
        status: "online".into(),
        providers: vec!["mock".into()],
        capabilities: Vec::new(),
        capacity: Value::Null,
    };
    control.control_link().heartbeat(beat).await.unwrap();
    control.start().await.unwrap();
    let config = ServerConfig {
        auth: AuthConfig {
            api_key: Secret::new(if keys.api { API } else { "" }),
            admin_api_key: Secret::new(if keys.admin { ADMIN } else { "" }),
            admin_fallback_enabled: keys.fallback,
        },
        cors_allowed_origins: Vec::new(),
        max_body_bytes: 1024 * 1024,
        loopback_only: true,
        version: "0.0.0-test".into(),
        clock,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(Server::new(config, control).serve(listener, shutdown.clone()));
    House { addr, seen, gate, shutdown, served, _dir: dir }
}

fn control_config(local_worker: WorkerId) -> ControlConfig {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    ControlConfig {
        defaults: Defaults {
            provider: "mock".into(),
            image: "host".into(),
            ttl: minutes(30),
            max_ttl: minutes(60),
            memory_mb: 64,
            vcpus: 1,
            disk_size_mb: 64,
            default_exec_timeout: Duration::ZERO,
            max_exec_timeout: minutes(10),
            max_sandboxes: 0,
            max_sandboxes_per_owner: 0,
        },
        max_output_bytes: 1024 * 1024,
        preview_domain: Some("localhost".into()),
        record_retention: minutes(60),
        history: Default::default(),
        images: Default::default(),
        local_worker,
    }
}

impl House {
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let headers: Vec<_> =
            headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        exchange(self.addr, method, path, &headers, body.as_bytes()).await.unwrap()
    }

    /// With the API key.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, &format!("/api/v1{path}"), &[("X-API-Key", API)], body).await
    }

    pub async fn spawned(&self) -> String {
        let reply = self.ask("POST", "/sandboxes", "{}").await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json().unwrap()["id"].as_str().unwrap().to_owned()
    }
}
