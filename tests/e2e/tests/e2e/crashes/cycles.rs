//! A thousand sandboxes come and go, and the host is as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::Client;
use client::api::SpawnRequest;
use testkit::{Footprint, wait_for};

use super::slate::{assert_clean, rows};
use super::world::{SOON, Server, World, in_time, shell};

const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cycles_leave_the_host_as_it_was() {
    cycles("native", 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cycles_on_mock_leave_the_host_as_it_was() {
    cycles("mock", 300).await;
}

async fn cycles(provider: &'static str, count: usize) {
    let mut world = World::new(provider);
    let server = world.start().await;
    // What is made at first use is there afterwards.
    run(&server, 4 * AT_ONCE).await;
    assert_clean(&world, &server, &[]).await;
    let before = settled(&world, &server).await;
    run(&server, count).await;
    assert_clean(&world, &server, &[]).await;
    wait_for("the host to be as it was", SOON, async || {
        let changed = before.difference(&Footprint::of(&world.system, &server.running));
        if changed.is_empty() { Ok(()) } else { Err(changed.join("\n")) }
    })
    .await;
    let log = server.running.log();
    let complaints: Vec<_> =
        log.lines().filter(|l| l.contains("\"WARN\"") || l.contains("\"ERROR\"")).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    server.stop().await;
    assert_eq!(rows(&world).unwrap().into_iter().collect::<Vec<_>>(), ["counted 0"]);
    world.assert_nothing_left().await;
}

/// The footprint, once it no longer changes: prepared parts are refilled in the background, and
/// connections of clients that are gone are closed.
async fn settled(world: &World, server: &Server) -> Footprint {
    let mut last = Footprint::of(&world.system, &server.running);
    let mut same = 0;
    wait_for("the server to be idle", SOON, async || {
        let now = Footprint::of(&world.system, &server.running);
        let changed = last.difference(&now);
        same = if changed.is_empty() { same + 1 } else { 0 };
        last = now;
        if same >= 20 { Ok(()) } else { Err(changed.join("\n")) }
    })
    .await;
    last
}

/// So many cycles, several at a time, each with clients of its own.
async fn run(server: &Server, count: usize) {
    let left = Arc::new(AtomicUsize::new(count));
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (left, client) = (Arc::clone(&left), server.running.client());
        loops.spawn(async move {
            let one_less = |n: usize| n.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                in_time("a cycle", cycle(&client)).await;
            }
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended.unwrap();
    }
}

async fn cycle(client: &Client) {
    let made = client.spawn(&SpawnRequest::default()).await.unwrap();
    let done = client.exec(&made.id, &shell("echo $((6 * 7)) > f; cat f")).await.unwrap();
    assert_eq!((done.exit_code, done.stdout.as_str()), (0, "42\n"));
    client.write_file(&made.id, "/workspace/g", "text", None).await.unwrap();
    assert_eq!(client.destroy(&made.id, None).await.unwrap().status, "destroyed");
}
