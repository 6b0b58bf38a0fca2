//! A worker: starts, stops.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::worker::ControlLink;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::Fault;
use types::clock::SharedClock;

use crate::adopt;
use crate::config::{Providers, WorkerConfig};
use crate::core::Core;
use crate::folder::Spares;
use crate::heartbeat;
use crate::lock::{self, DirLock};
use crate::outbox::{self, Outbox};
use crate::pool::{self, Pool};
use crate::probes::Probes;
use crate::supervisor::Sandboxes;
use crate::ttl::{self, Ttl};

/// Work under way gets this long to finish when the worker stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The half that does. Also the in-process [`protocol::worker::WorkerLink`].
pub struct Worker {
    pub(crate) core: Arc<Core>,
    _lock: DirLock,
}

impl Worker {
    /// Takes its folder, and starts to adopt what it finds there. Calls wait until that is done.
    ///
    /// Faults: `Unavailable` if another process has the folder, if sandboxes of another
    /// installation live in it, or if a newer release wrote in it.
    pub async fn start(
        config: WorkerConfig,
        providers: Providers,
        control: Arc<dyn ControlLink>,
        clock: SharedClock,
    ) -> Result<Arc<Self>, Fault> {
        providers.find("")?;
        let (dir, id, given) = (config.dir.clone(), config.id.clone(), config.boot_id.clone());
        let most = config.spare_folders;
        let opened = tokio::task::spawn_blocking(move || {
            let folders = dir.join("sandboxes");
            std::fs::create_dir_all(&folders).map_err(|e| {
                Fault::unavailable("the worker's folder cannot be made").caused_by(e)
            })?;
            let lock = lock::take(&dir, &id)?;
            let boot_id = given.map_or_else(|| read_boot_id(Path::new(BOOT_ID)), Ok)?;
            let found = adopt::scan(&folders)?;
            let spares = Spares::prepare(dir.join("spare"), most).map_err(|e| {
                Fault::unavailable("the worker cannot write in its folder").caused_by(e)
            })?;
            Ok::<_, Fault>((lock, boot_id, found, spares))
        });
        let (lock, boot_id, found, spares) =
            opened.await.map_err(|e| Fault::internal("starting the worker").caused_by(e))??;
        let found =
            adopt::without_foreign(found, &providers, &config.installation_id, &boot_id).await?;
        let pool = Pool::new(config.warm.clone());
        let core = Arc::new(Core {
            config,
            boot_id,
            providers,
            control,
            clock,
            sandboxes: Sandboxes::new(),
            spares,
            pool,
            ttl: Ttl::default(),
            outbox: Outbox::default(),
            probes: Probes::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            adopted: watch::Sender::new(false),
        });
        core.tasks.spawn(adopt::run(Arc::clone(&core), found));
        core.tasks.spawn(ttl::run(Arc::clone(&core)));
        core.tasks.spawn(outbox::run(Arc::clone(&core)));
        core.tasks.spawn(heartbeat::run(Arc::clone(&core)));
        for n in 0..core.config.warm.pools.len() {
            core.tasks.spawn(pool::run(Arc::clone(&core), n));
        }
        Ok(Arc::new(Self { core, _lock: lock }))
    }

    /// From now on dropping the stream of a command does not cancel it: the server goes, the
    /// command runs to its own deadline. Call it before streams are told to end.
    pub fn keep_commands(&self) {
        for sandbox in self.core.sandboxes.all() {
            if let Some(made) = sandbox.made() {
                made.guest.keep();
            }
        }
    }

    /// Stops; sandboxes and the commands in them live on, those that wait in the warm pool end. Call it before dropping streams of
    /// running commands, which cancels them: afterwards it does not.
    pub async fn shutdown(&self) {
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.core.empty_pool()).await.is_err() {
            tracing::warn!("the warm pool is not empty: the next start ends what is in it");
        }
        self.core.stop.cancel();
        for sandbox in self.core.sandboxes.all() {
            if let Some(made) = sandbox.made() {
                made.guest.hang_up();
            }
            sandbox.set_watch(None);
        }
        self.core.tasks.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("work is left undone: the next start completes it");
        }
    }
}

impl Drop for Worker {
    /// Without a shutdown: its tasks end at least, and leave the sandboxes.
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

fn read_boot_id(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|e| Fault::unavailable("the boot of the host cannot be told").caused_by(e))
}
