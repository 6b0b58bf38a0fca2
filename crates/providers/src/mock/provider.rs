//! The mock provider.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::spawner::{Root, Setup, SpawnSpec};
use protocol::worker::BoxFuture;
use tokio::task::spawn_blocking;
use types::clock::SharedClock;
use types::{EndedReason, Fault, SandboxId};

use crate::host::{CgroupTree, Core, Facts, Identity, Launcher, Writable, mounts};
use crate::native::environment;
use crate::{AgentStream, CreateSpec, Liveness, PreparedImage, Provider, ProviderStats, Runtime};

/// The root folder of a sandbox, in its own one.
const ROOT: &str = "root";
const WORKDIR: &str = "/workspace";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone)]
pub struct MockConfig {
    /// Where the sandboxes' folders are. With the installation id it says what is ours.
    pub sandboxes_dir: PathBuf,
    pub installation_id: String,
    pub clock: SharedClock,
}

pub struct MockProvider {
    core: Core,
}

impl MockProvider {
    pub async fn start(config: MockConfig) -> Result<Arc<Self>, Fault> {
        let identity = Identity::new(&config.installation_id, &config.sandboxes_dir, "mock");
        let cgroups = spawn_blocking(move || Ok(CgroupTree::prepare(&mounts()?, &identity)))
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)))
            .map_err(|e| Fault::unavailable("this host tells too little").caused_by(e))?;
        let setup = Setup {
            sandboxes_dir: text(&config.sandboxes_dir)?,
            cgroups: cgroups.parents().clone(),
            unconfined: true,
            ..Default::default()
        };
        let launcher = match Launcher::start(setup, Box::new(Vec::new)).await {
            Ok(launcher) => launcher,
            Err(fault) => {
                cgroups.remove_if_empty();
                return Err(fault);
            }
        };
        let core = Core::new(launcher, cgroups, config.sandboxes_dir, config.clock, true)?;
        Ok(Arc::new(Self { core }))
    }

    async fn make(&self, spec: CreateSpec) -> Result<Runtime, Fault> {
        let root = spec.dir.join(ROOT);
        let order = order(&spec, text(&root)?);
        let made = match make_root(root.clone()).await {
            Ok(()) => self.core.make(spec, order, Writable::Directory).await,
            Err(fault) => Err(fault),
        };
        if made.is_err() {
            remove_root(root).await?;
        }
        made
    }
}

fn order(spec: &CreateSpec, path: String) -> SpawnSpec {
    let home = format!("HOME={path}/root");
    SpawnSpec {
        id: spec.id.to_string(),
        hostname: spec.id.to_string(),
        env: environment(&[PATH, &home], &spec.image.env),
        root: Root::Directory { path },
        user: None,
        workdir: WORKDIR.into(),
        memory_bytes: u64::from(spec.size.memory_mb) << 20,
        cpu_millis: spec.size.vcpus.saturating_mul(1000),
        pids: 0,
        deadline_boot_nanos: spec.deadline.nanos(),
        limits: Default::default(),
        dies_with_fd: spec.tied,
        slot: None,
    }
}

async fn make_root(root: PathBuf) -> Result<(), Fault> {
    let make = move || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        ["workspace", "root", "tmp"].iter().try_for_each(|dir| builder.create(root.join(dir)))
    };
    let made = spawn_blocking(make).await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    made.map_err(|e| Fault::unavailable("the sandbox's folder could not be made").caused_by(e))
}

async fn remove_root(root: PathBuf) -> Result<(), Fault> {
    let removed = spawn_blocking(move || std::fs::remove_dir_all(root)).await;
    match removed.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::unavailable("the sandbox's files could not be removed").caused_by(e))
        }
        _ => Ok(()),
    }
}

fn text(path: &Path) -> Result<String, Fault> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Fault::unavailable("the data directory's path is not valid UTF-8"))
}

impl Provider for MockProvider {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn capabilities(&self) -> Vec<String> {
        ["spawn", "exec", "exec_stream", "files", "console", "health", "test_provider"]
            .map(str::to_owned)
            .to_vec()
    }

    fn config(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("type".to_owned(), "mock".to_owned())])
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let answer = self.core.probe();
        Box::pin(async { answer })
    }

    fn prepare(&self, image: &str) -> BoxFuture<'_, Result<PreparedImage, Fault>> {
        let prepared = PreparedImage { resolved: image.to_owned(), ..Default::default() };
        Box::pin(async { Ok(prepared) })
    }

    fn prepared<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Option<PreparedImage>> {
        Box::pin(async { self.prepare(image).await.ok() })
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
            remove_root(dir.join(ROOT)).await
        })
    }

    fn stats<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<ProviderStats, Fault>> {
        Box::pin(self.core.stats(runtime))
    }

    fn sweep<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Result<usize, Fault>> {
        Box::pin(async move { Ok(self.core.sweep(known, Vec::new()).await?.len()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.core.close())
    }
}
