//! The worker registry: freshness, forgetting, and what placement makes of it.

use std::sync::Arc;
use std::time::Duration;

use control::Destroyed;
use types::{ErrorCode, SandboxState};

use crate::support::{Act, FakeWorker, MemoryStore, System, beat, code, config, input, report};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_deleted_local_worker_stays_away_for_thirty_seconds() {
    let s = System::start().await;
    let made = s.spawn().await;
    s.control.delete_worker("local").await.unwrap();
    assert_eq!(code(s.control.delete_worker("local").await), ErrorCode::NotFound);
    s.heartbeat("local").await;
    assert!(s.control.workers().await.unwrap().is_empty());
    let fault = s.control.spawn(&s.ctx, input()).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::ResourceLimit);
    assert!(fault.message.contains("retry"), "{fault}");
    // A provider that is known but away is no mistake of the caller.
    let named = control::SpawnInput { provider: Some("mock".to_owned()), ..input() };
    assert_eq!(code(s.control.spawn(&s.ctx, named).await), ErrorCode::ResourceLimit);
    // Its sandboxes stay usable meanwhile.
    let shown = s.control.sandbox(&s.ctx, made.id.as_str()).await.unwrap();
    assert_eq!(shown.state, SandboxState::Running);
    s.control.stats(&s.ctx, made.id.as_str()).await.unwrap();
    let gone = s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
    assert_eq!(gone, Destroyed::Done);
    s.clock.advance(29 * SECOND);
    s.heartbeat("local").await;
    assert!(s.control.workers().await.unwrap().is_empty());
    s.clock.advance(SECOND);
    s.heartbeat("local").await;
    assert_eq!(s.control.workers().await.unwrap().len(), 1);
    s.spawn().await;
}

#[tokio::test(start_paused = true)]
async fn stale_after_three_intervals_or_two_minutes() {
    for (capacity, fresh) in
        [(serde_json::Value::Null, 120), (serde_json::json!({"heartbeat_interval": "10s"}), 30)]
    {
        let s = System::start().await;
        s.uplink.heartbeat(beat("local", capacity)).await.unwrap();
        s.clock.advance(fresh * SECOND);
        assert!(!s.control.worker("local").await.unwrap().stale);
        s.spawn().await;
        // Turning the wall clock makes nobody older.
        s.clock.set_wall(s.later(fresh * 100 * SECOND));
        assert!(!s.control.worker("local").await.unwrap().stale);
        s.clock.advance(SECOND);
        assert!(s.control.worker("local").await.unwrap().stale);
        assert_eq!(code(s.control.spawn(&s.ctx, input()).await), ErrorCode::ResourceLimit);
        s.heartbeat("local").await;
        s.spawn().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_offline_makes_its_sandboxes_unhealthy_until_it_speaks() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.clock.advance(401 * SECOND);
    let (control, ctx) = (&s.control, &s.ctx);
    let state = |id: types::SandboxId| async move {
        control.sandbox(ctx, id.as_str()).await.unwrap().state
    };
    assert_eq!(state(id.clone()).await, SandboxState::Unhealthy);
    s.uplink.heartbeat(beat("local", serde_json::Value::Null)).await.unwrap();
    assert_eq!(state(id).await, SandboxState::Running);
}

#[tokio::test(start_paused = true)]
async fn draining_and_full_workers_get_nothing_and_ends_free_their_seats() {
    let s = System::start().await;
    let mut draining = beat("local", serde_json::Value::Null);
    draining.status = "draining".to_owned();
    s.uplink.heartbeat(draining).await.unwrap();
    assert_eq!(code(s.control.spawn(&s.ctx, input()).await), ErrorCode::ResourceLimit);
    s.uplink.heartbeat(beat("local", serde_json::json!({"max_sandboxes": 2}))).await.unwrap();
    let first = s.spawn().await;
    s.spawn().await;
    let fault = s.control.spawn(&s.ctx, input()).await.unwrap_err();
    assert!(fault.message.contains("full"), "{fault}");
    s.control.destroy(&s.ctx, first.id.as_str(), None).await.unwrap();
    // A failed spawn gives its seat back, too; so does one that the store refuses.
    s.worker.next("spawn", Act::Fail(ErrorCode::InternalError));
    assert!(s.control.spawn(&s.ctx, input()).await.is_err());
    s.store.next("insert", crate::support::StoreAct::Busy);
    assert!(s.control.spawn(&s.ctx, input()).await.is_err());
    s.spawn().await;
    assert!(s.control.spawn(&s.ctx, input()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_not_there_is_not_found() {
    let s = System::start().await;
    for id in ["none", "a b", ""] {
        assert_eq!(code(s.control.worker(id).await), ErrorCode::NotFound);
        assert_eq!(code(s.control.delete_worker(id).await), ErrorCode::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn providers_and_readiness() {
    let s = System::start().await;
    s.spawn().await;
    let (told, count) = s.control.provider("MOCK").await.unwrap();
    assert_eq!((told.name.as_str(), count), ("mock", 1));
    assert_eq!(code(s.control.provider("nope").await), ErrorCode::NotFound);
    assert!(s.control.readiness().await.ready);
    s.store.next("check", crate::support::StoreAct::Busy);
    assert!(!s.control.readiness().await.ready);
    s.worker.state().providers = vec![report("mock", false)];
    let told = s.control.readiness().await;
    assert!(!told.ready && told.providers.len() == 1);
    s.worker.next("providers", Act::Hang);
    let began = tokio::time::Instant::now();
    assert!(!s.control.readiness().await.ready);
    assert!(began.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_first_spawn_after_the_start_finds_a_worker() {
    let store = Arc::new(MemoryStore::default());
    let s = System::unstarted(config(), store, Arc::new(FakeWorker::default()));
    let control = s.control.clone();
    let starting = tokio::spawn(async move { control.start().await });
    // It reports later than it is asked.
    tokio::time::sleep(2 * SECOND).await;
    assert!(!s.control.readiness().await.ready);
    s.heartbeat("local").await;
    starting.await.unwrap().unwrap();
    assert!(s.control.readiness().await.ready);
    s.spawn().await;
}
