//! The native provider.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use protocol::spawner::Setup;
use protocol::worker::BoxFuture;
use tokio::task::spawn_blocking;
use types::failpoint::hit;
use types::{EndedReason, Fault, SandboxId};

use super::NativeConfig;
use super::order::spawn_spec;
use super::storage::Storage;
use crate::host::{
    CgroupTree, Claims, Core, DEFAULT_CLAIMS_DIR, Facts, Launcher, Writable, has_full_uid_map,
    mounts,
};
use crate::images::ImageStore;
use crate::{AgentStream, CreateSpec, Liveness, PreparedImage, Provider, ProviderStats, Runtime};

pub struct NativeProvider {
    core: Core,
    images: Arc<ImageStore>,
    storage: Storage,
    /// `None` once given back, and when rootless.
    claims: Mutex<Option<Claims>>,
    pids_limit: u32,
    cgroup_kind: &'static str,
}

/// What is found and claimed before the spawner starts.
struct Ground {
    cgroups: CgroupTree,
    cgroup_kind: &'static str,
    claims: Option<Claims>,
}

impl NativeProvider {
    /// Finds out what this host can do, claims uid ranges, opens the disk store and starts the
    /// spawner. A fault says why the provider can't run here.
    pub async fn start(config: NativeConfig) -> Result<Arc<Self>, Fault> {
        let ground = prepare_ground(&config).await?;
        hit("native.claimed");
        let identity = config.identity();
        let storage = match Storage::open(config.storage(&identity)).await {
            Ok(storage) => storage,
            Err(fault) => {
                give_back(ground.cgroups, ground.claims).await;
                return Err(fault);
            }
        };
        if let Storage::Tmpfs { reason } = &storage {
            tracing::info!(%reason, "sandboxes write to tmpfs, not to a disk store");
        }
        let ranges = ground.claims.as_ref().map(Claims::ranges);
        let text = |path: PathBuf| {
            path.into_os_string()
                .into_string()
                .map_err(|_| Fault::unavailable("the data directory's path is not valid UTF-8"))
        };
        let disk_dir = storage.mount_point().map(|p| text(p.to_owned())).transpose()?;
        let setup = Setup {
            layers_dir: text(config.images.layers_dir().to_owned())?,
            sandboxes_dir: text(config.sandboxes_dir.clone())?,
            disk_dir,
            cgroups: ground.cgroups.parents().clone(),
            uid_ranges: ranges,
            pool: config.pool,
            unconfined: false,
            used_slots: Vec::new(),
        };
        let tree = ground.cgroups.clone();
        let find_slots = Box::new(move || {
            ranges.map(|r| tree.slots_in_use(r.first, r.count)).into_iter().flatten().collect()
        });
        let launcher = match Launcher::start(setup, find_slots).await {
            Ok(launcher) => launcher,
            Err(fault) => {
                storage.close().await;
                give_back(ground.cgroups, ground.claims).await;
                return Err(fault);
            }
        };
        let core = Core::new(launcher, ground.cgroups, config.sandboxes_dir, config.clock, false)?;
        Ok(Arc::new(Self {
            core,
            images: config.images,
            storage,
            claims: Mutex::new(ground.claims),
            pids_limit: config.pids_limit,
            cgroup_kind: ground.cgroup_kind,
        }))
    }

    /// Why sandboxes write to tmpfs; `None`: they write to the disk store.
    pub fn tmpfs_reason(&self) -> Option<&str> {
        match &self.storage {
            Storage::Disk(_) => None,
            Storage::Tmpfs { reason } => Some(reason),
        }
    }

    async fn make(&self, spec: CreateSpec) -> Result<Runtime, Fault> {
        let bytes = u64::from(spec.size.disk_size_mb) << 20;
        // Until its layers are mounted, nobody may remove the image.
        // The layer comes from another thread: begun first, it costs the longer of the two.
        let (upper, hold) =
            tokio::join!(self.storage.provide(&spec.id, bytes), self.images.hold(&spec.image));
        let (upper, _hold) = match (upper, hold) {
            (Ok(upper), Ok(hold)) => (upper, hold),
            (Ok(_), Err(fault)) => {
                self.storage.discard(&spec.id);
                return Err(fault);
            }
            (Err(fault), _) => return Err(fault),
        };
        hit("native.layered");
        let writable = match &upper {
            protocol::spawner::Upper::Disk { name } => Writable::Disk { name: name.clone() },
            protocol::spawner::Upper::Tmpfs { .. } => Writable::Tmpfs,
        };
        let order = spawn_spec(&spec, upper, self.pids_limit);
        let id = spec.id.clone();
        let made = self.core.make(spec, order, writable).await;
        if made.is_err() {
            self.storage.discard(&id);
        }
        made
    }
}

async fn prepare_ground(config: &NativeConfig) -> Result<Ground, Fault> {
    let (identity, blocks) = (config.identity(), config.uid_blocks);
    let prepared = spawn_blocking(move || {
        let table = mounts()?;
        let cgroup_kind = crate::host::Hierarchies::find(&table).kind();
        let claims = match has_full_uid_map() {
            true => Some(Claims::claim(DEFAULT_CLAIMS_DIR.as_ref(), &identity, blocks)?),
            false => None,
        };
        let cgroups = CgroupTree::prepare(&table, &identity);
        Ok::<_, std::io::Error>(Ground { cgroups, cgroup_kind, claims })
    });
    prepared.await.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| {
        Fault::unavailable("no range of user ids could be claimed on this host").caused_by(e)
    })
}

/// Removes our cgroups and claims, unless a sandbox has one of them.
async fn give_back(tree: CgroupTree, claims: Option<Claims>) {
    let given_back = spawn_blocking(move || {
        if tree.sandboxes().is_empty() {
            tree.remove_if_empty();
            claims.into_iter().for_each(Claims::give_back);
        }
    });
    if let Err(error) = given_back.await {
        tracing::error!(%error, "giving the host's cgroups and user ids back");
    }
}

impl Provider for NativeProvider {
    fn name(&self) -> &'static str {
        "native"
    }

    fn capabilities(&self) -> Vec<String> {
        let facts = self.core.launcher.facts();
        let disk_limit = true; // a qgroup's or the tmpfs's own
        let enforced = [
            ("memory_limit", facts.memory_limit),
            ("cpu_limit", facts.cpu_limit),
            ("pids_limit", facts.pids_limit),
            ("disk_limit", disk_limit),
            ("uid_range", facts.uid_range),
        ];
        let always = ["spawn", "exec", "exec_stream", "files", "console", "health", "namespaces"];
        let held = enforced.into_iter().filter(|(_, held)| *held).map(|(word, _)| word);
        always.into_iter().chain(held).map(str::to_owned).collect()
    }

    fn config(&self) -> BTreeMap<String, String> {
        let storage = match &self.storage {
            Storage::Disk(_) => "disk",
            Storage::Tmpfs { .. } => "tmpfs",
        };
        let user = if self.core.launcher.facts().uid_range { "root" } else { "rootless" };
        let facts = [
            ("type", "native"),
            ("storage", storage),
            ("cgroups", self.cgroup_kind),
            ("mode", user),
        ];
        facts.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let answer = self.core.probe();
        Box::pin(async { answer })
    }

    fn prepare(&self, image: &str) -> BoxFuture<'_, Result<PreparedImage, Fault>> {
        let image = image.to_owned();
        Box::pin(async move { self.images.prepare(&image).await })
    }

    fn prepared<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Option<PreparedImage>> {
        Box::pin(self.images.prepared(image))
    }

    fn create(&self, spec: CreateSpec) -> BoxFuture<'_, Result<Runtime, Fault>> {
        Box::pin(self.make(spec))
    }

    fn connect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<AgentStream, Fault>> {
        Box::pin(self.core.connect(runtime))
    }

    fn inspect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<Liveness, Fault>> {
        let answer = self.core.inspect(runtime);
        Box::pin(async { answer })
    }

    fn adopt<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.core.adopt(runtime))
    }

    fn wait(&self, runtime: &Runtime) -> BoxFuture<'static, EndedReason> {
        self.core.wait(runtime)
    }

    fn destroy<'a>(
        &'a self,
        id: &'a SandboxId,
        runtime: Option<&'a Runtime>,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let facts = runtime.map(Facts::of).transpose()?;
            let dir = runtime.map_or_else(|| self.core.dir_of(id), |r| r.dir.clone());
            self.core.end(id, facts.as_ref(), &dir).await?;
            self.storage.discard(id);
            Ok(())
        })
    }

    fn stats<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<ProviderStats, Fault>> {
        Box::pin(async {
            let mut stats = self.core.stats(runtime).await?;
            // From inside, the whole store is seen: nobody else's files are this sandbox's.
            if let Some(disk) = self.storage.usage(&runtime.id).await {
                stats.disk_bytes = Some(disk.used);
                stats.disk_limit_bytes = Some(disk.limit);
            }
            Ok(stats)
        })
    }

    fn sweep<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Result<usize, Fault>> {
        Box::pin(async move {
            let swept = self.core.sweep(known, self.storage.sandboxes().await).await?;
            swept.iter().for_each(|id| self.storage.discard(id));
            Ok(swept.len())
        })
    }

    fn images(&self) -> Option<&ImageStore> {
        Some(&self.images)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.images.close().await;
            self.core.close().await;
            self.storage.close().await;
            let claims = self.claims.lock().unwrap_or_else(|e| e.into_inner()).take();
            give_back(self.core.cgroups.clone(), claims).await;
        })
    }
}
