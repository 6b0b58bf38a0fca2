//! `serve`: a control plane with one worker in the same process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use control::{Control, ControlConfig, Defaults, HistoryRetention, ImageRetention};
use server::{AuthConfig, Server, ServerConfig};
use store::{SqliteOptions, SqliteStore, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::WorkerId;
use types::clock::{SharedClock, SystemClock};
use worker::{Worker, WorkerConfig};

use super::providers::Started;
use super::{DataDir, Signals, address, guard, hostname, providers, warm};
use crate::config::{Config, Loaded, absent_providers};
use crate::failure::{Failure, chain};

/// The worker that is part of a single-host control plane.
const LOCAL: &str = "local";
/// What is under way may take so long to be recorded when the process stops.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What the command line adds to the configuration.
pub struct Serving {
    pub addr_file: Option<PathBuf>,
    pub insecure: bool,
}

/// Serves until a signal; returns the exit code. The first signal ends it in order, the second at
/// once.
pub async fn serve(loaded: &Loaded, serving: &Serving) -> Result<u8, Failure> {
    guard::check(&loaded.config, serving.insecure)?;
    let mut signals = Signals::catch()?;
    let stop = CancellationToken::new();
    let mut work = pin!(run(loaded, serving, stop.clone()));
    tokio::select! {
        done = &mut work => return done.map(|()| 0),
        signal = signals.next() => {
            tracing::info!(?signal, "stopping: sandboxes stay");
            stop.cancel();
        }
    }
    tokio::select! {
        done = &mut work => done.map(|()| 0),
        signal = signals.next() => {
            tracing::warn!(?signal, "stopping at once");
            Ok(signal.exit_code())
        }
    }
}

async fn run(loaded: &Loaded, serving: &Serving, stop: CancellationToken) -> Result<(), Failure> {
    let config = &loaded.config;
    say(loaded);
    let (data_dir, store) = open(config).await?;
    let clock: SharedClock = Arc::new(SystemClock);
    let worker_id = worker_id(config)?;
    let control =
        Control::new(control_config(config, worker_id.clone()), store.clone(), clock.clone());
    let (listener, bound) = address::bind(&config.server.host, config.server.port).await?;
    let mut http = Http::start(config, control.clone(), clock.clone(), listener, bound);
    tracing::info!(address = %bound, "listening");

    let starting = async {
        let started = start_worker(config, &data_dir, &*store, &worker_id, &control, clock).await?;
        control.attach_worker(worker_id, started.0.clone());
        control.start().await?;
        if let Some(file) = &serving.addr_file {
            announce(file, bound).await?;
        }
        tracing::info!(address = %bound, "ready");
        Ok::<_, Failure>(started)
    };
    let result = tokio::select! {
        started = starting => match started {
            Ok((worker, providers)) => {
                let keep = KeepCommands(worker.clone());
                let ended = http.until(&stop, || {
                    control.leave();
                    worker.keep_commands();
                });
                let ended = ended.await;
                drop(keep);
                control.shutdown().await;
                worker.shutdown().await;
                providers.close().await;
                ended
            }
            Err(failure) => {
                http.stop().await;
                Err(failure)
            }
        },
        ended = http.until(&stop, || ()) => ended,
    };
    if tokio::time::timeout(CLOSE_DEADLINE, store.close()).await.is_err() {
        tracing::warn!("the store is still busy");
    }
    tracing::info!("stopped");
    result
}

/// A second signal drops everything at once, however far the first one came: commands run on.
struct KeepCommands(Arc<Worker>);

impl Drop for KeepCommands {
    fn drop(&mut self) {
        self.0.keep_commands();
    }
}

fn say(loaded: &Loaded) {
    let file = loaded.file.as_deref().map(Path::display);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file.map(tracing::field::display),
        data_dir = loaded.config.data_dir,
        "starting"
    );
    let ignored = loaded.warnings.iter().cloned().chain(absent_providers(loaded));
    for warning in ignored.chain(guard::warnings(&loaded.config)) {
        tracing::warn!("{warning}");
    }
}

/// Opens what lies on the disk; both take locks or refuse.
async fn open(config: &Config) -> Result<(DataDir, Arc<SqliteStore>), Failure> {
    let (dir, database) = (PathBuf::from(&config.data_dir), PathBuf::from(&config.database.path));
    let opened = tokio::task::spawn_blocking(move || {
        let dir = DataDir::open(&dir).map_err(|e| Failure::new(e.to_string()))?;
        let store = SqliteStore::open(&database, SqliteOptions::default()).map_err(|e| {
            Failure::because(&format!("cannot open the database {}", database.display()), &e)
        })?;
        dir.note_installation(store.installation_id())
            .map_err(|e| Failure::because("cannot write in the data directory", &e))?;
        Ok((dir, store))
    });
    opened.await.map_err(|e| Failure::because("cannot start", &e))?
}

async fn start_worker(
    config: &Config,
    data_dir: &DataDir,
    store: &dyn Store,
    id: &WorkerId,
    control: &Control,
    clock: SharedClock,
) -> Result<(Arc<Worker>, Started), Failure> {
    let installation = store.installation_id();
    let dir = data_dir.worker(id);
    let started = providers::all(config, data_dir, &dir, installation).await?;
    let mut worker = WorkerConfig::new(id.clone(), dir, installation);
    worker.hostname = hostname();
    worker.heartbeat_interval = config.worker.heartbeat_interval;
    worker.capacity = capacity(config);
    worker.warm = warm::pools(config)?;
    let link = control.control_link();
    match Worker::start(worker, started.providers.clone(), link, clock).await {
        Ok(worker) => Ok((worker, started)),
        Err(fault) => {
            started.close().await;
            Err(fault.into())
        }
    }
}

/// What the worker says of itself beside its providers. Never the control plane's own limits.
fn capacity(config: &Config) -> serde_json::Value {
    match config.worker.preview_domain.as_str() {
        "" => serde_json::json!({}),
        domain => serde_json::json!({ "preview_domain": domain }),
    }
}

fn worker_id(config: &Config) -> Result<WorkerId, Failure> {
    let id = if config.worker.id.is_empty() { LOCAL } else { &config.worker.id };
    WorkerId::parse(id).map_err(|e| Failure::because("worker.id cannot be used", &e))
}

fn control_config(config: &Config, local_worker: WorkerId) -> ControlConfig {
    let d = &config.defaults;
    let domain = &config.server.preview_domain;
    ControlConfig {
        defaults: Defaults {
            provider: config.providers.default.clone(),
            image: d.image.clone(),
            ttl: d.ttl,
            max_ttl: d.max_ttl,
            memory_mb: d.memory_mb,
            vcpus: d.vcpus,
            disk_size_mb: d.disk_size_mb,
            default_exec_timeout: d.default_exec_timeout,
            max_exec_timeout: d.max_exec_timeout,
            max_sandboxes: d.max_sandboxes,
            max_sandboxes_per_owner: d.max_sandboxes_per_owner,
        },
        max_output_bytes: config.exec.max_output_bytes,
        preview_domain: (!domain.is_empty()).then(|| domain.clone()),
        record_retention: config.retention.sandboxes,
        history: HistoryRetention {
            keep: config.retention.execs,
            per_sandbox: config.retention.execs_per_sandbox,
        },
        images: ImageRetention {
            unused_for: config.retention.images,
            bytes: config.retention.images_size_mb.saturating_mul(1 << 20),
        },
        local_worker,
    }
}

async fn announce(file: &Path, bound: SocketAddr) -> Result<(), Failure> {
    let (to, shown) = (file.to_owned(), file.display());
    let written = tokio::task::spawn_blocking(move || address::write_file(&to, bound)).await;
    written
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
        .map_err(|e| Failure::because(&format!("cannot write the address to {shown}"), &e))
}

/// The front door, on a task of its own.
struct Http {
    task: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Http {
    fn start(
        config: &Config,
        control: Control,
        clock: SharedClock,
        listener: TcpListener,
        bound: SocketAddr,
    ) -> Self {
        let server = Server::new(
            ServerConfig {
                auth: AuthConfig {
                    api_key: config.auth.api_key.clone(),
                    admin_api_key: config.auth.admin_api_key.clone(),
                    admin_fallback_enabled: config.auth.admin_fallback_enabled,
                },
                cors_allowed_origins: config.server.cors_allowed_origins.clone(),
                max_body_bytes: config.server.max_body_bytes as u64,
                loopback_only: bound.ip().is_loopback(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                clock,
            },
            control,
        );
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(listener, stop.clone()));
        Self { task, stop }
    }

    /// Serves until told to stop; then calls `stopping`, and ends in order.
    async fn until(
        &mut self,
        stop: &CancellationToken,
        stopping: impl FnOnce(),
    ) -> Result<(), Failure> {
        tokio::select! {
            ended = &mut self.task => return outcome(ended),
            () = stop.cancelled() => {}
        }
        stopping();
        self.stop().await;
        Ok(())
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        if let Err(failure) = outcome((&mut self.task).await) {
            tracing::error!(error = failure.text, "the server ended badly");
        }
    }
}

fn outcome(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Failure::because("the server cannot go on", &e)),
        Err(e) => Err(Failure::new(format!("the server cannot go on: {}", chain(&e)))),
    }
}
