//! The warm pool: filled, handed out once, aged out, never told of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::worker::{WarmOrder, WarmPoolReport, WorkerLink};
use providers::PreparedImage;
use types::clock::Clock;
use types::{EndedReason, SandboxId, SandboxSize, SandboxState};
use worker::{WarmConfig, WarmPool, Worker};

use crate::support::{Step, World, run, wait_for};

const SIZE: SandboxSize = SandboxSize { memory_mb: 64, vcpus: 1, disk_size_mb: 64 };
const AGE: Duration = Duration::from_secs(300);

fn pool(count: usize) -> WarmPool {
    WarmPool { provider: String::new(), image: "host".to_owned(), size: SIZE, count }
}

fn world(count: usize) -> World {
    let mut world = World::new();
    world.config.warm =
        WarmConfig { pools: vec![pool(count)], max_age: AGE, memory_bytes: 1 << 30 };
    world
}

fn order(world: &World) -> WarmOrder {
    WarmOrder {
        provider: "fake".to_owned(),
        image: "host".to_owned(),
        size: SIZE,
        generation: 1,
        expires_at: world.clock.wall().saturating_add(Duration::from_secs(600)),
    }
}

async fn report(worker: &Worker) -> WarmPoolReport {
    worker.warm_pools().await.unwrap().remove(0)
}

async fn full(worker: &Worker) {
    let look = async || {
        let seen = report(worker).await;
        (seen.ready == seen.desired).then_some(())
    };
    wait_for("a full pool", look).await;
}

async fn take(world: &World, worker: &Worker) -> SandboxId {
    worker.take_warm(order(world)).await.unwrap().expect("one is ready")
}

#[tokio::test]
async fn one_that_is_taken_is_like_any_other_and_is_replaced() {
    let world = world(2);
    let worker = world.start().await;
    full(&worker).await;
    let waiting = world.provider.ids();
    assert_eq!(waiting.len(), 2);
    assert!(worker.inventory().await.unwrap().is_empty(), "nobody knows of what waits");
    assert!(worker.status(waiting[0].clone()).await.unwrap().is_none());
    let early = worker
        .exec(crate::support::command(&waiting[0], &["echo"]), protocol::worker::Stdin::Empty);
    assert!(early.await.is_err(), "what waits runs nothing");

    let id = take(&world, &worker).await;
    assert!(waiting.contains(&id));
    let fact = worker.status(id.clone()).await.unwrap().unwrap();
    assert_eq!((fact.state, fact.generation), (SandboxState::Running, 1));
    assert_eq!(fact.expires_at, order(&world).expires_at);
    assert!(run(&worker, &id, &["echo", "x"]).await.1.is_ok());
    full(&worker).await;
    let seen = report(&worker).await;
    assert_eq!((seen.desired, seen.ready, seen.taken), (2, 2, 1));
    assert_eq!(world.provider.creates.load(Ordering::SeqCst), 3);

    // Its agent ends it when it ends, not when the pool would have had enough of it.
    let told = world.provider.agent(&id);
    let end = world.clock.boot().saturating_add(Duration::from_secs(602)).nanos();
    wait_for("the agent to be told", async || {
        (told.deadlines.lock().unwrap().as_slice() == [end]).then_some(())
    })
    .await;

    // Control has had the time to record it.
    assert!(worker.inventory().await.unwrap().is_empty());
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(worker.inventory().await.unwrap()[0].sandbox_id, id);

    world.destroy(&worker, &id).await.unwrap();
    world.assert_gone(&id);
    assert_ne!(take(&world, &worker).await, id);
    worker.shutdown().await;
}

#[tokio::test]
async fn only_what_fits_is_handed_out() {
    let world = world(1);
    let worker = world.start().await;
    full(&worker).await;
    let larger = SandboxSize { memory_mb: 128, ..SIZE };
    let none = [
        WarmOrder { size: larger, ..order(&world) },
        WarmOrder { provider: "other".to_owned(), ..order(&world) },
        WarmOrder { expires_at: world.clock.wall(), ..order(&world) },
    ];
    for order in none {
        assert_eq!(worker.take_warm(order.clone()).await.unwrap(), None, "{order:?}");
    }
    // Another name that means the same will do.
    let alias = WarmOrder { image: "alias".to_owned(), ..order(&world) };
    assert!(worker.take_warm(alias).await.unwrap().is_some());
    worker.shutdown().await;
}

#[tokio::test]
async fn an_image_that_moved_is_not_handed_out_any_more() {
    let world = world(2);
    let worker = world.start().await;
    full(&worker).await;
    let old = world.provider.ids();
    let moved = PreparedImage { resolved: "sha256:2".to_owned(), ..Default::default() };
    *world.provider.image.lock().unwrap() = moved;
    assert_eq!(worker.take_warm(order(&world)).await.unwrap(), None);
    wait_for("the old ones to go", async || {
        old.iter().all(|id| !world.provider.has(id)).then_some(())
    })
    .await;
    full(&worker).await;
    assert!(!old.contains(&take(&world, &worker).await));
    worker.shutdown().await;
}

#[tokio::test]
async fn what_waits_too_long_or_dies_is_replaced_and_nobody_hears_of_it() {
    let world = world(3);
    let worker = world.start().await;
    full(&worker).await;
    let first = world.provider.ids();
    world.provider.kill(&first[0], EndedReason::Crashed);
    wait_for("the dead one to go", async || (!world.provider.has(&first[0])).then_some(())).await;
    full(&worker).await;
    world.clock.advance(AGE);
    wait_for("the old ones to go", async || {
        first.iter().all(|id| !world.provider.has(id)).then_some(())
    })
    .await;
    full(&worker).await;
    for id in &first {
        world.assert_gone(id);
        assert!(worker.status(id.clone()).await.unwrap().is_none());
    }
    assert!(worker.inventory().await.unwrap().is_empty());
    assert!(world.control.reports().is_empty(), "{:?}", world.control.reports());
    worker.shutdown().await;
}

#[tokio::test]
async fn one_that_is_about_to_go_is_not_handed_out() {
    let world = world(1);
    let worker = world.start().await;
    full(&worker).await;
    let old = world.provider.ids();
    // They live for three quarters of the age or more, and for all of it at most.
    let mut waited = Duration::ZERO;
    while world.provider.has(&old[0]) && waited < AGE {
        if let Some(id) = worker.take_warm(order(&world)).await.unwrap() {
            let fact = worker.status(id.clone()).await.unwrap().expect("it was handed out");
            assert_eq!(fact.state, SandboxState::Running, "after {waited:?}");
            worker.return_warm(id).await.unwrap();
        }
        world.clock.advance(Duration::from_millis(500));
        waited += Duration::from_millis(500);
    }
    worker.shutdown().await;
}

#[tokio::test]
async fn one_that_comes_back_unused_is_the_next() {
    let world = world(2);
    let worker = world.start().await;
    full(&worker).await;
    let id = take(&world, &worker).await;
    worker.return_warm(id.clone()).await.unwrap();
    assert!(worker.status(id.clone()).await.unwrap().is_none());
    assert_eq!(report(&worker).await.taken, 0);
    assert_eq!(take(&world, &worker).await, id);
    // Too old to wait any longer.
    world.clock.advance(AGE);
    worker.return_warm(id.clone()).await.unwrap();
    wait_for("it to go", async || (!world.provider.has(&id)).then_some(())).await;
    world.assert_gone(&id);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_restart_keeps_what_was_taken_and_ends_what_waits() {
    let world = world(2);
    let worker = world.start().await;
    full(&worker).await;
    let (kept, back) = (take(&world, &worker).await, take(&world, &worker).await);
    worker.return_warm(back.clone()).await.unwrap();
    full(&worker).await;
    let before = world.provider.ids();
    // As a crash does: nothing is emptied.
    drop(Arc::try_unwrap(worker).ok());

    let again = async || world.try_start().await.ok();
    let worker = wait_for("the folder to be free", again).await;
    assert!(worker.inventory().await.unwrap().iter().any(|f| f.sandbox_id == kept));
    for id in before.iter().filter(|id| **id != kept) {
        world.assert_gone(id);
    }
    assert!(!world.provider.has(&back));
    assert!(run(&worker, &kept, &["echo", "x"]).await.1.is_ok());
    assert!(world.control.reports().is_empty(), "{:?}", world.control.reports());
    full(&worker).await;
    world.clock.advance(Duration::from_secs(599));
    assert!(worker.status(kept.clone()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.control.report_on(&kept).await.reason, EndedReason::Expired);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_that_waits() {
    let world = world(3);
    let worker = world.start().await;
    full(&worker).await;
    let taken = take(&world, &worker).await;
    worker.shutdown().await;
    assert_eq!(world.provider.ids(), [taken]);
    assert_eq!(worker.take_warm(order(&world)).await.unwrap(), None);
}

#[tokio::test]
async fn the_share_of_memory_is_the_bound() {
    let mut world = world(5);
    // Two of what is counted where nothing can be measured.
    world.config.warm.memory_bytes = 2 << 20;
    let worker = world.start().await;
    wait_for("the bound to be told", async || {
        let seen = report(&worker).await;
        (seen.ready == 2 && seen.held_up.is_some_and(|why| why.contains("2 MiB"))).then_some(())
    })
    .await;
    assert_eq!(world.provider.ids().len(), 2);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_pool_that_cannot_be_filled_says_why_and_goes_on() {
    let world = world(1);
    world.provider.fail(Step::Create, 1);
    let worker = world.start().await;
    wait_for("the reason", async || report(&worker).await.held_up).await;
    full(&worker).await;
    assert_eq!(report(&worker).await.held_up, None);
    worker.shutdown().await;
}
