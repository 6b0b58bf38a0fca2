//! Spawns from a warm pool: sandboxes like any other, none given twice, nothing left by a crash.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use client::api::{SpawnRequest, WarmPools};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use testkit::wait_for;

use super::crashes::slate::assert_clean;
use super::crashes::world::{IMAGE, SOON, Server, World, in_time, names};

/// The one key that switches it on; unset again, a server starts without it.
const KEY: &str = "STACYVM_DEFAULTS_WARM_POOL";

async fn warm(world: &mut World, count: u64) -> Server {
    world.system.env(KEY, &count.to_string());
    let server = world.start().await;
    world.system.unset_env(KEY);
    full(&server).await;
    server
}

async fn status(server: &Server) -> WarmPools {
    let status = server.client.pool_status().await.unwrap();
    assert!(!status.enabled, "sandboxes never share a machine");
    status.warm.expect("there is a pool")
}

async fn full(server: &Server) {
    wait_for("a full pool", SOON, async || {
        let seen = status(server).await;
        if seen.ready == seen.desired { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_warm_sandbox_is_one_like_any_other() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = warm(&mut world, 3).await;
        let waiting = names(&world.folders());
        assert_eq!(waiting.len(), 3);
        assert!(server.ids().await.unwrap().is_empty(), "nobody is told of what waits");
        let unknown = server.client.get(&waiting[0]).await.unwrap_err();
        assert_eq!(unknown.status(), Some(404));

        if provider == "native" {
            let path = format!("/api/v1/images/{}", IMAGE.replace(':', "%3A"));
            let kept = server.running.call("DELETE", &path, &[], &Value::Null).await.unwrap();
            assert_eq!(kept.status, 409, "an image that waits is in use: {}", kept.text());
        }

        let asked = SpawnRequest {
            metadata: Some([("k".to_owned(), "v".to_owned())].into()),
            name: Some("first".into()),
            ..SpawnRequest::default()
        };
        let made = server.spawn_as(asked).await;
        let id = made.id.as_str();
        assert!(waiting.iter().any(|w| w == id), "{id} is none of {waiting:?}");
        assert_eq!(
            (made.state.as_str(), server.ids().await.unwrap()),
            ("running", vec![id.into()])
        );
        assert_eq!(server.client.get(id).await.unwrap(), made);
        server.said(id, "echo kept > f; cat f").await;
        if provider == "native" {
            assert_eq!(server.said(id, "hostname; ls -A /workspace").await, format!("{id}\nf"));
        }
        let stats = server.client.stats(id).await.unwrap();
        let plain =
            server.spawn_as(SpawnRequest { memory_mb: Some(96), ..Default::default() }).await;
        assert!(!waiting.contains(&plain.id), "of another size: made anew");
        let other = server.client.stats(&plain.id).await.unwrap();
        let limit = |s: &client::api::Stats| s.mem_limit_bytes;
        if limit(&other).is_some_and(|bytes| bytes > 0) {
            assert!(limit(&stats) > limit(&other), "{stats:?}, {other:?}");
        }

        // What one had, no other gets.
        server.destroy(id).await;
        full(&server).await;
        for _ in 0..4 {
            let next = server.spawn().await;
            assert_ne!(next, id);
            assert_ne!(server.sh(&next, "cat f").await.exit_code, 0);
            server.destroy(&next).await;
        }
        let short = server.spawn_for("1s").await;
        wait_for("its time to be up", SOON, async || match server.client.get(&short.id).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        server.destroy(&plain.id).await;
        assert!(status(&server).await.taken >= 4);
        assert!(!server.running.log().contains("WARN"), "{}", server.running.log());
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_burst_gets_each_once() {
    let mut world = World::new("native");
    let server = warm(&mut world, 5).await;
    // By a name that nobody has used before, too.
    let waiting = names(&world.folders());
    let image = Some(format!("docker.io/library/{IMAGE}"));
    let other = server.spawn_as(SpawnRequest { image, ..SpawnRequest::default() }).await;
    assert!(waiting.contains(&other.id), "{} is none of {waiting:?}", other.id);
    server.destroy(&other.id).await;
    full(&server).await;
    let made = join_all((0..24).map(|_| server.spawn())).await;
    let distinct: BTreeSet<_> = made.iter().collect();
    assert_eq!(distinct.len(), 24);
    assert!(status(&server).await.taken >= 5);
    let said = join_all(made.iter().map(|id| server.said(id, "hostname"))).await;
    assert_eq!(said, made);
    join_all(made.iter().map(|id| server.destroy(id))).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn a_crash_ends_what_waits_and_keeps_what_was_taken() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = warm(&mut world, 3).await;
        let kept = server.spawn_for("10m").await.id;
        server.said(&kept, "echo kept > f").await;
        full(&server).await;
        server.kill().await;
        assert_eq!(names(&world.folders()).len(), 4);

        // Without a pool: nothing fills it up again.
        let server = world.start().await;
        assert_clean(&world, &server, &[&kept]).await;
        assert_eq!(server.said(&kept, "cat f").await, "kept");
        server.kill().await;

        if cfg!(debug_assertions) {
            for point in ["pool.journaled", "pool.taken", "control.answered"] {
                dies_at(&mut world, point, &kept).await;
            }
        }
        let server = warm(&mut world, 3).await;
        assert_eq!(names(&world.folders()).len(), 4);
        server.destroy(&kept).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

/// A server ends at that step of handing one out; the next finds all as it should be.
async fn dies_at(world: &mut World, point: &str, kept: &str) {
    world.system.env("STACYVM_FAILPOINT", point);
    let mut server = warm(world, 2).await;
    world.system.unset_env("STACYVM_FAILPOINT");
    let asked = in_time("a spawn", server.client.spawn(&SpawnRequest::default())).await;
    assert!(asked.is_err(), "{point}: {asked:?}");
    let status = server.running.exit(SOON).await;
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{point}");

    let server = world.start().await;
    if point == "control.answered" {
        // It is marked as answered: nobody knows better, it lives until its time is up.
        let ids = server.ids().await.unwrap();
        let late = ids.iter().find(|id| *id != kept).unwrap_or_else(|| panic!("{point}: {ids:?}"));
        assert_clean(world, &server, &[kept, late]).await;
        server.destroy(late).await;
    }
    assert_clean(world, &server, &[kept]).await;
    server.kill().await;
}
