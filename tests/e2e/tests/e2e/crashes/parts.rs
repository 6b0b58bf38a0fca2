//! The server's helpers die, and the first process of a sandbox.

use std::time::Duration;

use testkit::wait_for;

use super::slate::assert_clean;
use super::world::{SOON, Server, World, gone, in_time, shell};

/// Waits until a sandbox is known to be dead.
async fn dead(server: &Server, id: &str) {
    wait_for("the state to say so", SOON, async || {
        let seen = server.client.get(id).await.map_err(|e| e.to_string())?;
        if seen.state == "error" { Ok(()) } else { Err(seen.state) }
    })
    .await;
    let refused = in_time("an exec", server.client.exec(id, &shell("true"))).await;
    let refused = refused.expect_err("nobody runs it");
    assert_eq!((refused.status(), refused.code()), (Some(409), Some("SANDBOX_DEAD")), "{refused}");
    let refused = server.client.read_file(id, "/etc/passwd").await.expect_err("nobody reads it");
    assert_eq!(refused.code(), Some("SANDBOX_DEAD"), "{refused}");
}

#[tokio::test]
async fn sandboxes_live_on_without_their_spawner() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = world.start().await;
        let old = server.spawn().await;
        let mut lines = server.stream(&old, "while :; do echo tick; sleep 0.02; done").await;
        for _ in 0..3 {
            let spawner = server.spawner();
            spawner.kill();
            gone("the spawner", &spawner).await;
            assert_eq!(server.said(&old, "echo alive").await, "alive");
            let line = in_time("a tick", lines.next()).await.unwrap().unwrap();
            assert_eq!(line.data, "tick\n");
            // A spawn waits for the next one.
            let new = server.spawn().await;
            assert_eq!(server.said(&new, "echo new").await, "new");
            server.destroy(&new).await;
        }
        drop(lines);
        assert_clean(&world, &server, &[&old]).await;
        server.destroy(&old).await;
        assert_clean(&world, &server, &[]).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_spawner_that_dies_among_many_spawns_leaves_nothing_half_made() {
    let mut world = World::new("native");
    let server = world.start().await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let client = server.client.clone();
        asked.spawn(async move { client.spawn(&Default::default()).await });
    }
    let mut made = Vec::new();
    let mut first = true;
    while let Some(done) = in_time("a spawn", asked.join_next()).await {
        if std::mem::take(&mut first) {
            server.spawner().kill();
        }
        match done.unwrap() {
            Ok(sandbox) => made.push(sandbox.id),
            // Told in words; which ones it hits is chance.
            Err(e) => assert_eq!(e.status(), Some(503), "{e}"),
        }
    }
    // What was answered lives, whatever died meanwhile.
    let living: Vec<&str> = made.iter().map(String::as_str).collect();
    assert_clean(&world, &server, &living).await;
    for id in &made {
        server.destroy(id).await;
    }
    assert_clean(&world, &server, &[]).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn a_sandbox_whose_agent_dies_is_dead_until_it_is_destroyed() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = world.start().await;
        let (id, other) = (server.spawn().await, server.spawn().await);
        let mut lines = server.stream(&id, "while :; do echo tick; sleep 0.02; done").await;
        in_time("a tick", lines.next()).await.unwrap();
        world.agent_of(&id).kill();
        // A stream never makes up an exit code.
        let mut last = None;
        while let Some(line) = in_time("a line", lines.next()).await.unwrap() {
            last = Some(line);
        }
        let last = last.expect("a last line");
        assert_eq!((last.exit_code, last.error.as_deref()), (None, Some("SANDBOX_DEAD")));
        dead(&server, &id).await;
        server.destroy(&id).await;
        assert_clean(&world, &server, &[&other]).await;
        server.destroy(&other).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_sandbox_that_died_without_a_server_is_found_dead() {
    for provider in ["native", "mock"] {
        let mut world = World::new(provider);
        let server = world.start().await;
        let (id, other) = (server.spawn().await, server.spawn().await);
        let agent = world.agent_of(&id);
        server.kill().await;
        agent.kill();
        gone("the agent", &agent).await;
        let server = world.start().await;
        dead(&server, &id).await;
        // Dead it stays, over another start as well.
        server.kill().await;
        let server = world.start().await;
        dead(&server, &id).await;
        server.destroy(&id).await;
        assert_clean(&world, &server, &[&other]).await;
        server.destroy(&other).await;
        server.stop().await;
        world.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_command_along() {
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    let script = "(setsid sleep 601.7 &) ; sleep 601.6";
    let mut lines = server.stream(&id, &format!("echo up; {script}")).await;
    in_time("a line", lines.next()).await.unwrap();
    let naps = [
        super::world::running(&["sleep", "601.6"]).await,
        super::world::running(&["sleep", "601.7"]).await,
    ];
    drop(lines);
    for nap in &naps {
        gone("a command whose client left", nap).await;
    }
    let captured = shell("sleep 601.8");
    let call = tokio::time::timeout(Duration::from_millis(300), server.client.exec(&id, &captured));
    assert!(call.await.is_err(), "it was to be given up");
    wait_for("the captured one's end", SOON, async || {
        match testkit::Process::running(&["sleep", "601.8"]) {
            None => Ok(()),
            Some(process) => Err(format!("process {} lives", process.pid)),
        }
    })
    .await;
    assert_clean(&world, &server, &[&id]).await;
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}
