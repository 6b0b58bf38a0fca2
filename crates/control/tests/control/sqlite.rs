//! The same rules over the real store, with real threads.

use std::sync::Arc;
use std::time::Duration;

use control::{Context, Control, SpawnInput};
use futures_util::future::join_all;
use store::{SqliteOptions, SqliteStore, Store};
use types::clock::SystemClock;
use types::{ErrorCode, OwnerId, SandboxState, WorkerId};

use crate::support::{FakeWorker, beat, code, config};

async fn over(store: &Arc<SqliteStore>, worker: &Arc<FakeWorker>, max: u64) -> Control {
    let mut config = config();
    config.defaults.max_sandboxes = max;
    config.defaults.max_sandboxes_per_owner = 4;
    let control = Control::new(config, store.clone(), Arc::new(SystemClock));
    control.attach_worker(WorkerId::parse("local").unwrap(), worker.clone());
    control.control_link().heartbeat(beat("local", serde_json::Value::Null)).await.unwrap();
    control.start().await.unwrap();
    control
}

fn owned(owner: usize) -> SpawnInput {
    let owner = OwnerId::parse(format!("o{owner}")).unwrap();
    SpawnInput { owner: Some(owner), ..SpawnInput::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_hold_under_threads_and_a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stacyvm.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let worker = Arc::new(FakeWorker::default());
    let control = over(&store, &worker, 10).await;
    let spawn = |i: usize| {
        let control = control.clone();
        tokio::spawn(async move { control.spawn(&Context::default(), owned(i % 4)).await })
    };
    let mut made = Vec::new();
    for spawned in join_all((0..64).map(spawn)).await {
        match spawned.unwrap() {
            Ok(sandbox) => made.push(sandbox),
            Err(fault) => assert_eq!(fault.code, ErrorCode::ResourceLimit, "{fault}"),
        }
    }
    assert_eq!(made.len(), 10);
    assert_eq!(worker.state().most_live, 10);
    for owner in 0..4 {
        let owner = OwnerId::parse(format!("o{owner}")).unwrap();
        assert!(made.iter().filter(|s| s.owner_id.as_ref() == Some(&owner)).count() <= 4);
    }
    control.shutdown().await;

    let control = over(&store, &worker, 10).await;
    let ctx = Context::default();
    assert_eq!(control.sandboxes(&ctx).await.unwrap().len(), 10);
    for sandbox in &made {
        let shown = control.sandbox(&ctx, sandbox.id.as_str()).await.unwrap();
        assert_eq!((shown.state, shown.answered), (SandboxState::Running, true));
        control.extend(&ctx, sandbox.id.as_str(), Duration::from_secs(60)).await.unwrap();
        control.destroy(&ctx, sandbox.id.as_str(), None).await.unwrap();
        let gone = control.sandbox(&ctx, sandbox.id.as_str()).await;
        assert_eq!(code(gone), ErrorCode::NotFound);
    }
    assert_eq!(store.counts(None).await.unwrap().total, 0);
    assert!(worker.state().sandboxes.is_empty());
    control.shutdown().await;
    store.close().await;
    // A store that has closed is a clear 503.
    assert_eq!(code(control.sandboxes(&ctx).await), ErrorCode::Unavailable);
}
