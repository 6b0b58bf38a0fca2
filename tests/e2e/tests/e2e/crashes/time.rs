//! The end of a sandbox comes in time, whoever looks after it by then.

use std::time::Duration;

use testkit::wait_for;
use types::Timestamp;
use types::clock::{Clock, SystemClock};

use super::slate::assert_clean;
use super::world::{SOON, Server, World, gone};

/// From expiry to destruction.
const PROMISED: Duration = Duration::from_secs(2);

fn now() -> Timestamp {
    SystemClock.wall()
}

async fn until(time: Timestamp) {
    wait_for("the time to come", SOON, async || match time.since(now()) {
        left if left.is_zero() => Ok(()),
        left => Err(format!("{left:?} are left")),
    })
    .await;
}

async fn says_expired(server: &Server, id: &str) {
    let expired = server.client.get(id).await.expect_err("it has expired");
    assert_eq!(expired.status(), Some(404), "{expired}");
    assert!(expired.to_string().contains("expired"), "{expired}");
}

#[tokio::test]
async fn a_ttl_runs_on_under_the_next_server() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = world.start().await;
        let (short, long) = (server.spawn_for("1500ms").await, server.spawn().await);
        let agent = world.agent_of(&short.id);
        server.kill().await;
        let server = world.start().await;
        gone("an expired sandbox", &agent).await;
        let late = now().since(short.expires_at);
        assert!(late < PROMISED, "{provider}: {late:?} late");
        assert!(short.expires_at.since(now()).is_zero(), "{provider}: it ended too early");
        wait_for("its record's end", SOON, async || match server.ids().await {
            Ok(ids) if ids == [long.clone()] => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        says_expired(&server, &short.id).await;
        assert_clean(&world, &server, &[&long]).await;
        server.destroy(&long).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn what_expires_without_a_server_is_gone_with_the_next() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = world.start().await;
        let (short, long) = (server.spawn_for("300ms").await, server.spawn().await);
        server.kill().await;
        until(short.expires_at).await;
        let server = world.start().await;
        wait_for("its end", PROMISED, async || match server.ids().await {
            Ok(ids) if ids == [long.clone()] => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        says_expired(&server, &short.id).await;
        assert_clean(&world, &server, &[&long]).await;
        server.destroy(&long).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn an_extended_end_is_remembered() {
    let mut world = World::new("native");
    let server = world.start().await;
    let short = server.spawn_for("2s").await;
    let extended = server.client.extend(&short.id, Duration::from_secs(600)).await.unwrap();
    assert!(extended.expires_at > short.expires_at);
    server.kill().await;
    until(short.expires_at).await;
    let server = world.start().await;
    assert_clean(&world, &server, &[&short.id]).await;
    let seen = server.client.get(&short.id).await.unwrap();
    assert_eq!(seen.expires_at, extended.expires_at);
    server.destroy(&short.id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}
