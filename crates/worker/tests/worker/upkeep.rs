//! Heartbeats, probes, the lock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::worker::WorkerLink;
use types::ErrorCode;

use crate::support::{Step, World, wait_for, within};

#[tokio::test]
async fn a_heartbeat_comes_at_once_and_again() {
    let mut world = World::new();
    world.config.heartbeat_interval = Duration::from_millis(5);
    world.config.capacity = serde_json::json!({ "max_sandboxes": 3 });
    world.control.away.store(true, Ordering::SeqCst);
    let _worker = world.start().await;
    wait_for("a refused beat", async || {
        (world.control.refused.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    world.control.away.store(false, Ordering::SeqCst);
    let beats = wait_for("three beats", async || {
        let beats = world.control.beats.lock().unwrap();
        (beats.len() >= 3).then(|| beats.clone())
    })
    .await;
    assert_eq!(beats[0].providers, ["fake"]);
    assert_eq!(beats[0].status, "online");
    assert_eq!(beats[0].capabilities, ["api", "single_node", "spawn", "exec", "files"]);
    assert_eq!(beats[0].capacity["max_sandboxes"], 3);
}

#[tokio::test]
async fn bug_37_an_ill_provider_is_told_without_asking_it_each_time() {
    let world = World::new();
    let worker = world.start().await;
    let report = &worker.providers(true).await.unwrap()[0];
    assert!(report.healthy && report.default && report.error.is_none());
    world.provider.fail(Step::Probe, usize::MAX);
    let report = &worker.providers(true).await.unwrap()[0];
    assert_eq!(report.error.as_deref(), Some("Probe was told to fail"));
    // One that hangs is given up on; what was last seen is told at once.
    *world.provider.probe_delay.lock().unwrap() = Duration::from_secs(3600);
    let cached = worker.providers(false);
    assert!(
        !tokio::time::timeout(Duration::from_secs(1), cached).await.unwrap().unwrap()[0].healthy
    );
    let report = &within("a hanging probe", worker.providers(true)).await.unwrap()[0];
    assert_eq!(report.error.as_deref(), Some("the provider does not answer"));
}

#[tokio::test]
async fn a_folder_has_one_worker() {
    let world = World::new();
    let worker = world.start().await;
    let fault = world.try_start().await.err().unwrap();
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert!(fault.message.contains("in use"), "{}", fault.message);
    worker.shutdown().await;
    drop(worker);
    world.start().await;
}
