//! Against a real btrfs file; as root only.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::host::mounts;

fn config(dir: &Path, scope: &str) -> StorageConfig {
    StorageConfig {
        choice: StorageChoice::Disk,
        dir: dir.to_owned(),
        max_mb: Some(2048),
        join_only: false,
        scope: scope.into(),
        pool: 2,
    }
}

fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && mkfs_program().is_some();
    if !can {
        eprintln!("skipped: needs root and btrfs-progs");
    }
    can
}

fn id(n: u32) -> SandboxId {
    SandboxId::parse(format!("sb-{n}")).unwrap()
}

async fn provide(storage: &Storage, n: u32, mb: u64) -> PathBuf {
    let Upper::Disk { name } = storage.provide(&id(n), mb << 20).await.unwrap() else {
        panic!("not on the disk store")
    };
    storage.mount_point().unwrap().join(name)
}

/// Writes until it fails or `mb` are written; how many were.
fn fill(path: &Path, mb: u64) -> (u64, Option<i32>) {
    let mut file = File::create(path).unwrap();
    let block = vec![7; 1 << 20];
    for n in 0..mb {
        if let Err(e) = file.write_all(&block).and_then(|()| file.sync_data()) {
            return (n, e.raw_os_error());
        }
    }
    (mb, None)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_layers_go_and_nothing_stays_mounted() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(config(dir.path(), "a")).await.unwrap();
    let blocks = std::fs::metadata(dir.path().join("store.btrfs")).unwrap();
    assert!(blocks.blocks() * 512 >= blocks.len(), "the file is sparse");
    let layer = provide(&storage, 1, 20).await;
    assert!(layer.join("u").is_dir() && layer.join("w").is_dir());
    let (written, errno) = fill(&layer.join("u/big"), 64);
    assert!((15..=20).contains(&written), "{written} MiB were written");
    assert!(matches!(errno, Some(libc::EDQUOT | libc::ENOSPC)), "{errno:?}");
    let usage = storage.usage(&id(1)).await.unwrap();
    assert_eq!(usage.limit, 20 << 20);
    assert!((15 << 20..=20 << 20).contains(&usage.used), "{usage:?}");
    assert_eq!(storage.usage(&id(2)).await, None);
    // The same id again: an interrupted create left its layer.
    let again = provide(&storage, 1, 20).await;
    assert_eq!(again, layer);
    assert!(!layer.join("u/big").exists());
    assert_eq!(storage.sandboxes().await, [id(1)]);

    // Another server of the same data directory sees its own only, and the store stays for it.
    let other = Storage::open(config(dir.path(), "b")).await.unwrap();
    assert_eq!(other.sandboxes().await, []);
    storage.discard(&id(1));
    until("the layer stays", async || storage.sandboxes().await.is_empty()).await;
    storage.close().await;
    let point = other.mount_point().unwrap().to_owned();
    let is_mounted = || mounts().unwrap().iter().any(|m| m.is_at(&point));
    assert!(is_mounted());
    drop(storage);
    other.close().await;
    assert!(!is_mounted());
    drop(other);
    let file = File::open(dir.path().join("store.btrfs")).unwrap();
    until("the loop device stays", async || loopdev::find(&file).unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_grows_under_a_writer_and_a_restart_finds_it() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(config(dir.path(), "a")).await.unwrap();
    let layer = provide(&storage, 7, 1500).await;
    let file = layer.join("u/big");
    // What was content and is erased must not be missing where files are recorded.
    for _ in 0..4 {
        let file = file.clone();
        let again = move || {
            let _ = std::fs::remove_file(&file);
            rustix::fs::sync();
            fill(&file, 900)
        };
        let (written, errno) = tokio::task::spawn_blocking(again).await.unwrap();
        assert_eq!((written, errno), (900, None));
    }
    drop(storage); // as a crash does: nothing is unmounted
    let storage = Storage::open(config(dir.path(), "a")).await.unwrap();
    assert_eq!(storage.sandboxes().await, [id(7)]);
    assert_eq!(std::fs::metadata(layer.join("u/big")).unwrap().len(), 900 << 20);
    storage.close().await;
    let point = storage.mount_point().unwrap().to_owned();
    assert!(mounts().unwrap().iter().any(|m| m.is_at(&point)), "a sandbox is on it");
    storage.discard(&id(7));
    drop(storage);
    let storage = Storage::open(config(dir.path(), "a")).await.unwrap();
    storage.discard(&id(7));
    storage.close().await;
    assert!(!mounts().unwrap().iter().any(|m| m.is_at(&point)));
}

#[tokio::test]
async fn without_one_it_is_tmpfs_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let join =
        StorageConfig { choice: StorageChoice::Auto, join_only: true, ..config(dir.path(), "a") };
    let storage = Storage::open(join.clone()).await.unwrap();
    assert!(matches!(&storage, Storage::Tmpfs { reason } if !reason.is_empty()));
    let upper = storage.provide(&id(1), 64 << 20).await.unwrap();
    assert_eq!(upper, Upper::Tmpfs { bytes: 64 << 20, inodes: 8192 });
    let demanded = StorageConfig { choice: StorageChoice::Disk, ..join };
    assert!(Storage::open(demanded).await.is_err());
    assert!(!dir.path().join("store.btrfs").exists());
}
