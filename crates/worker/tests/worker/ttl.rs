//! Time to live.

use std::time::Duration;

use protocol::worker::WorkerLink;
use types::clock::Clock;
use types::{EndedReason, Timestamp};

use crate::support::{World, forgotten, wait_for};

#[tokio::test]
async fn a_sandbox_ends_when_its_time_is_up() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    world.clock.advance(Duration::from_secs(599));
    assert!(worker.status(id.clone()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    let ended = world.control.report_on(&id).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Expired, true));
    assert_eq!(
        *world.control.ending.lock().unwrap(),
        std::slice::from_ref(&id),
        "control was asked first"
    );
    world.assert_gone(&id);
    forgotten(&worker, &id).await;
}

#[tokio::test]
async fn wall_time_may_jump() {
    let world = World::new();
    let worker = world.start().await;
    let (late, early) = (world.spawn(&worker, 1).await, world.spawn(&worker, 2).await);
    world.clock.set_wall(Timestamp::parse("2036-01-01T00:00:00Z").unwrap());
    let mut order = world.order(&crate::support::id(3));
    order.expires_at = world.clock.wall().saturating_add(Duration::from_secs(5));
    worker.spawn(order).await.unwrap();
    world.clock.advance(Duration::from_secs(6));
    // The third one is ended by the same queue: had the jump counted, the others went before it.
    world.control.report_on(&crate::support::id(3)).await;
    assert!(worker.status(late.clone()).await.unwrap().is_some());
    world.clock.set_wall(Timestamp::parse("2016-01-01T00:00:00Z").unwrap());
    world.clock.advance(Duration::from_secs(595));
    assert_eq!(world.control.report_on(&late).await.reason, EndedReason::Expired);
    assert_eq!(world.control.report_on(&early).await.reason, EndedReason::Expired);
}

#[tokio::test]
async fn an_extension_moves_the_end_and_the_agents() {
    let world = World::new();
    let worker = world.start().await;
    let (longer, shorter) = (world.spawn(&worker, 1).await, world.spawn(&worker, 2).await);
    let end = |secs| world.clock.wall().saturating_add(Duration::from_secs(secs));
    worker.extend(longer.clone(), world.lease(&longer, 3), end(1000)).await.unwrap();
    let start = world.clock.boot();
    let told = world.provider.agent(&longer).deadlines.lock().unwrap().clone();
    assert_eq!(told, [start.saturating_add(Duration::from_secs(1002)).nanos()]);
    let fact = worker.status(longer.clone()).await.unwrap().unwrap();
    assert_eq!((fact.expires_at, fact.generation), (end(1000), 3));
    worker.extend(shorter.clone(), world.lease(&shorter, 1), end(10)).await.unwrap();
    world.clock.advance(Duration::from_secs(700));
    assert_eq!(world.control.report_on(&shorter).await.reason, EndedReason::Expired);
    assert!(worker.status(longer.clone()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(301));
    wait_for("the end", async || (!world.provider.has(&longer)).then_some(())).await;
}

#[tokio::test]
async fn an_agent_that_ends_at_its_deadline_has_expired() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    world.provider.kill(&id, EndedReason::Expired);
    let ended = world.control.report_on(&id).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Expired, true));
    world.assert_gone(&id);
}
