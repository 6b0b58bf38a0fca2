//! The providers of a worker, as the configuration has them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::providers::Provider;
use ::providers::images::{ImageStore, Options, PullPolicy};
use ::providers::mock::{MockConfig, MockProvider};
use ::providers::native::{NativeConfig, NativeProvider, StorageChoice};
use types::Fault;
use types::clock::SystemClock;
use worker::Providers;

use super::DataDir;
use crate::config::{self, Config, NativeStorage};
use crate::failure::{Failure, chain};

/// Ranges of user ids are claimed in blocks of so many, one range a sandbox.
const RANGES_PER_BLOCK: u64 = 64;
/// Blocks for a server whose sandboxes are not counted: 4,096 native ones at once, and room for
/// fourteen more such servers on the host.
const MOST_BLOCKS: u64 = 64;
/// A default provider that cannot say it is well by then is not.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Where a worker's sandboxes have their folders.
pub const SANDBOXES: &str = "sandboxes";

/// Started providers, and what is to be closed at the end.
pub struct Started {
    pub providers: Providers,
    list: Vec<Arc<dyn Provider>>,
}

impl Started {
    /// Ends their helpers. Sandboxes live on.
    pub async fn close(self) {
        for provider in self.list {
            provider.close().await;
        }
    }
}

/// The images on this machine.
pub fn image_store(config: &Config, data_dir: &DataDir) -> Result<ImageStore, Failure> {
    let images = &config.images;
    let options = Options {
        pull: match images.pull {
            config::PullPolicy::Missing => PullPolicy::Missing,
            config::PullPolicy::Never => PullPolicy::Never,
            config::PullPolicy::Always => PullPolicy::Always,
        },
        registries: images.registries.clone(),
        docker_config: (!images.docker_config.is_empty()).then(|| (&images.docker_config).into()),
        ..Options::default()
    };
    ImageStore::open_with(data_dir.images(), images.aliases.clone(), options)
        .map_err(|e| Failure::because("cannot open the store of images", &e))
}

/// Those of a server: all that are enabled. The default one must work; another may be missing.
pub async fn all(
    config: &Config,
    data_dir: &DataDir,
    worker_dir: &Path,
    installation: &str,
) -> Result<Started, Failure> {
    check_default(config)?;
    let default = config.providers.default.as_str();
    let mut list: Vec<Arc<dyn Provider>> = Vec::new();
    if config.providers.native.enabled {
        let native = native_config(config, data_dir, worker_dir, installation)?;
        match NativeProvider::start(native).await {
            Ok(native) => list.push(native),
            Err(fault) if default == "native" => return Err(no_native(&fault)),
            Err(fault) => {
                tracing::warn!(error = chain(&fault), "the provider native can't run here");
            }
        }
    }
    if config.providers.mock.enabled {
        list.push(mock(worker_dir, installation).await?);
    }
    finish(list, default).await
}

/// That of a one-shot run: the default one alone.
pub async fn default_only(
    config: &Config,
    data_dir: &DataDir,
    worker_dir: &Path,
    installation: &str,
) -> Result<Started, Failure> {
    check_default(config)?;
    let default = config.providers.default.as_str();
    let provider: Arc<dyn Provider> = if default == "mock" {
        mock(worker_dir, installation).await?
    } else {
        let mut native = native_config(config, data_dir, worker_dir, installation)?;
        (native.storage_join_only, native.pool, native.uid_blocks) = (true, 0, 1);
        NativeProvider::start(native).await.map_err(|fault| no_native(&fault))?
    };
    finish(vec![provider], default).await
}

/// What the native provider is told for one worker.
pub fn native_config(
    config: &Config,
    data_dir: &DataDir,
    worker_dir: &Path,
    installation: &str,
) -> Result<NativeConfig, Failure> {
    let native = &config.providers.native;
    let sandboxes_dir = worker_dir.join(SANDBOXES);
    // Its real path says whose sandboxes are meant: it must be there.
    std::fs::create_dir_all(&sandboxes_dir)
        .map_err(|e| Failure::because("cannot make the worker's folder", &e))?;
    let blocks = match config.defaults.max_sandboxes {
        0 => MOST_BLOCKS,
        n => {
            let waiting: u64 = config.defaults.warm_pool.iter().map(|p| u64::from(p.count)).sum();
            ((n + waiting).div_ceil(RANGES_PER_BLOCK) + 1).min(MOST_BLOCKS)
        }
    };
    Ok(NativeConfig {
        images: Arc::new(image_store(config, data_dir)?),
        sandboxes_dir,
        disk_dir: data_dir.disk(),
        installation_id: installation.to_owned(),
        storage: storage(native.storage),
        storage_size_mb: (native.storage_size_mb > 0).then_some(native.storage_size_mb),
        storage_join_only: false,
        pids_limit: native.pids_limit,
        pool: native.pool,
        uid_blocks: blocks as u32,
        clock: Arc::new(SystemClock),
    })
}

pub fn storage(choice: NativeStorage) -> StorageChoice {
    match choice {
        NativeStorage::Auto => StorageChoice::Auto,
        NativeStorage::Disk => StorageChoice::Disk,
        NativeStorage::Tmpfs => StorageChoice::Tmpfs,
    }
}

async fn mock(worker_dir: &Path, installation: &str) -> Result<Arc<MockProvider>, Failure> {
    let sandboxes_dir = worker_dir.join(SANDBOXES);
    std::fs::create_dir_all(&sandboxes_dir)
        .map_err(|e| Failure::because("cannot make the worker's folder", &e))?;
    let config = MockConfig {
        sandboxes_dir,
        installation_id: installation.to_owned(),
        clock: Arc::new(SystemClock),
    };
    MockProvider::start(config)
        .await
        .map_err(|e| Failure::because("the provider mock can't run here", &e))
}

async fn finish(list: Vec<Arc<dyn Provider>>, default: &str) -> Result<Started, Failure> {
    if let Some(provider) = list.iter().find(|p| p.name() == default) {
        let probe = tokio::time::timeout(PROBE_DEADLINE, provider.probe()).await;
        let well = probe.unwrap_or_else(|_| Err(Fault::unavailable("it does not answer")));
        well.map_err(|e| {
            Failure::because(&format!("the default provider, {default}, is not well"), &e)
        })?;
    }
    Ok(Started { providers: Providers::new(list.clone(), default), list })
}

fn check_default(config: &Config) -> Result<(), Failure> {
    let providers = &config.providers;
    let enabled = match providers.default.as_str() {
        "mock" => providers.mock.enabled,
        _ => providers.native.enabled,
    };
    if enabled {
        return Ok(());
    }
    let name = &providers.default;
    Err(Failure::new(format!(
        "providers.default is {name}, but {name} is off: set providers.{name}.enabled: true"
    )))
}

fn no_native(fault: &Fault) -> Failure {
    Failure::new(format!(
        "sandboxes can't be made on this machine: {}\n  `stacyvm doctor` says what is missing",
        chain(fault)
    ))
}
