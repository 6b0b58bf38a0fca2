//! A provider on a folder of its own, and the check that nothing of it is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use providers::images::ImageStore;
use providers::mock::{MockConfig, MockProvider};
use providers::native::{CheckStatus, NativeConfig, NativeProvider, StorageChoice, doctor};
use providers::{CreateSpec, Provider, Runtime};
use tempfile::TempDir;
use types::clock::{Clock, SharedClock, SystemClock};
use types::{SandboxId, SandboxSize};

use crate::client::Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mock,
    Native(StorageChoice),
}

pub struct Ground {
    provider: Option<Arc<dyn Provider>>,
    kind: Kind,
    dir: TempDir,
    installation: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Ground {
    pub async fn mock() -> Self {
        Self::start(Kind::Mock).await
    }

    /// `None`: this host can't, and the reason is printed.
    pub async fn native() -> Option<Self> {
        Self::native_with(StorageChoice::Tmpfs).await
    }

    pub async fn native_on_disk() -> Option<Self> {
        Self::native_with(StorageChoice::Disk).await
    }

    async fn native_with(storage: StorageChoice) -> Option<Self> {
        let checks = doctor(storage, Path::new("/nonexistent"));
        let problems: Vec<_> =
            checks.into_iter().filter(|c| c.status == CheckStatus::Fail).collect();
        if !problems.is_empty() {
            eprintln!("skipped: this host can't run the native provider: {problems:?}");
            return None;
        }
        Some(Self::start(Kind::Native(storage)).await)
    }

    async fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let installation = format!("t{}-{n}-contract", std::process::id());
        for sub in ["sandboxes", "images", "disk"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let provider = provider(kind, dir.path(), &installation).await;
        Self { provider: Some(provider), kind, dir, installation }
    }

    /// As after a crash: the provider goes without a word, another one comes.
    pub async fn restart(&mut self) {
        self.drop_provider();
        self.provider = Some(provider(self.kind, self.dir.path(), &self.installation).await);
    }

    pub fn drop_provider(&mut self) {
        self.provider = None;
    }

    pub fn provider(&self) -> &dyn Provider {
        self.provider.as_deref().expect("there is one")
    }

    pub fn shared(&self) -> Arc<dyn Provider> {
        self.provider.clone().expect("there is one")
    }

    pub fn is_native(&self) -> bool {
        self.kind != Kind::Mock
    }

    pub async fn spec(&self) -> CreateSpec {
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = SandboxId::parse(format!("sb-{}-{n}", std::process::id())).unwrap();
        let dir = self.dir.path().join("sandboxes").join(id.as_str());
        std::fs::create_dir(&dir).unwrap();
        let image = self.provider().prepare("host").await.unwrap();
        let deadline = SystemClock.boot().saturating_add(Duration::from_secs(600));
        let size = SandboxSize { memory_mb: 128, vcpus: 1, disk_size_mb: 32 };
        CreateSpec { id, dir, socket: None, image, size, deadline, tied: false }
    }

    pub async fn create(&self) -> Runtime {
        self.provider().create(self.spec().await).await.unwrap()
    }

    pub async fn client(&self, runtime: &Runtime) -> Client {
        let client = Client::start(self.provider().connect(runtime).await.unwrap()).await;
        assert_eq!(client.hello.sandbox_id, runtime.id.as_str());
        client
    }

    /// Nothing of this sandbox is left but its folder, which is empty.
    pub async fn assert_no_trace(&self, id: &SandboxId) {
        until(&format!("something of {id} is left"), || {
            let mut left = cgroups_named(id.as_str());
            let folder = self.dir.path().join("sandboxes").join(id.as_str());
            left.extend(
                std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()),
            );
            let layers = std::fs::read_dir(self.dir.path().join("disk/mnt"));
            let layers = layers.into_iter().flatten().flatten().map(|e| e.path());
            left.extend(layers.filter(|p| p.to_string_lossy().ends_with(id.as_str())));
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|l| l.contains(id.as_str())).map(PathBuf::from));
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// Closes the provider and checks that it gave everything back.
    pub async fn close(self) {
        self.provider().close().await;
        drop(self.provider);
        let short: String = self.installation.chars().take(12).collect();
        let dir = self.dir;
        until("the provider left something", || {
            let mut left = cgroups_starting(&short);
            let claims = std::fs::read_dir("/run/stacyvm/uid-blocks").into_iter().flatten();
            let ours =
                |p: &PathBuf| std::fs::read_to_string(p).is_ok_and(|t| t.starts_with(&short));
            left.extend(claims.flatten().map(|e| e.path()).filter(ours));
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let here = dir.path().to_str().unwrap();
            left.extend(mounts.lines().filter(|l| l.contains(here)).map(PathBuf::from));
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

async fn provider(kind: Kind, dir: &Path, installation: &str) -> Arc<dyn Provider> {
    let clock: SharedClock = Arc::new(SystemClock);
    let (sandboxes_dir, installation_id) = (dir.join("sandboxes"), installation.to_owned());
    match kind {
        Kind::Mock => {
            MockProvider::start(MockConfig { sandboxes_dir, installation_id, clock }).await.unwrap()
        }
        Kind::Native(storage) => {
            let images = ImageStore::open(dir.join("images"), BTreeMap::new()).unwrap();
            let config = NativeConfig {
                images: Arc::new(images),
                sandboxes_dir,
                disk_dir: dir.join("disk"),
                installation_id,
                storage,
                storage_size_mb: Some(1024),
                storage_join_only: false,
                pids_limit: 64,
                pool: 2,
                uid_blocks: 1,
                clock,
            };
            NativeProvider::start(config).await.unwrap()
        }
    }
}

/// Calls until it succeeds; panics with what it saw last.
pub async fn until<E: std::fmt::Debug>(what: &str, mut done: impl FnMut() -> Result<(), E>) {
    let mut last = None;
    let wait = async {
        while let Err(seen) = done() {
            last = Some(seen);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(15), wait).await.is_err() {
        panic!("{what}: {last:?}");
    }
}

/// Cgroups of any installation of ours, two levels below each hierarchy's root.
fn all_cgroups(depth: usize) -> Vec<PathBuf> {
    let below = |dirs: Vec<PathBuf>| -> Vec<PathBuf> {
        let entries = dirs.iter().filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
    };
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(below(roots.clone()));
    let ours = roots.into_iter().map(|r| r.join("stacyvm")).collect();
    (0..depth).fold(ours, |dirs, _| below(dirs))
}

pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    all_cgroups(2).into_iter().filter(|p| p.ends_with(name)).collect()
}

fn cgroups_starting(prefix: &str) -> Vec<PathBuf> {
    let named =
        |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
    all_cgroups(1).into_iter().filter(named).collect()
}
