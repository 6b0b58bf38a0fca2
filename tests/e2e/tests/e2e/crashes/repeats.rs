//! Kills the server in the midst of a spawn that has a key, and repeats the spawn.

use std::os::unix::process::ExitStatusExt;

use client::api::SpawnRequest;

use super::slate::assert_clean;
use super::world::{SOON, World, in_time};

/// Every step of a spawn, and whether what was made by then is what the key fetches.
const STEPS: &[&str] = &[
    "control.inserted",
    "spawn.journaled",
    "spawn.listening",
    "spawn.created",
    "spawn.running",
    "control.spawned",
    "control.answered",
];

#[tokio::test]
async fn bug_50_a_key_is_remembered_across_crashes_on_native() {
    crash_and_repeat("native", &["spawn.created", "control.spawned", "control.answered"]).await;
}

#[tokio::test]
async fn bug_50_a_key_is_remembered_across_crashes_on_mock() {
    crash_and_repeat("mock", STEPS).await;
}

async fn crash_and_repeat(provider: &'static str, steps: &[&str]) {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no steps to be killed at");
        return;
    }
    let mut world = World::new(provider);
    let request = SpawnRequest { name: Some("kept".to_owned()), ..SpawnRequest::default() };
    for step in steps {
        let mut server = world.start_with(step).await;
        let asked = in_time("a spawn", server.client.spawn_once(step, &request)).await;
        assert!(asked.is_err(), "{step}: {asked:?}");
        let status = server.running.exit(SOON).await;
        assert_eq!(status.signal(), Some(9), "{step}: {}", server.running.log());
        let server = world.start().await;
        let again = in_time("the repeat", server.client.spawn_once(step, &request)).await;
        let made = again.unwrap_or_else(|e| panic!("{step}: {e}"));
        assert_eq!(made.state, "running", "{step}");
        assert_eq!(server.said(&made.id, "echo here").await, "here", "{step}");
        assert_eq!(server.ids().await.unwrap(), std::slice::from_ref(&made.id), "{step}");
        assert_clean(&world, &server, &[&made.id]).await;
        // Killed once more, it is still the answer; also when it is gone.
        server.kill().await;
        let server = world.start().await;
        for state in ["running", "destroyed"] {
            let again = server.client.spawn_once(step, &request).await.unwrap();
            assert_eq!((again.id.as_str(), again.state.as_str()), (made.id.as_str(), state));
            server.destroy(&made.id).await;
        }
        server.stop().await;
    }
    world.assert_nothing_left().await;
}
