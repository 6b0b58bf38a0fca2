//! The server ends, by a crash or in order, while commands run and streams flow; the next one takes
//! over.

use std::fs;
use std::time::Duration;

use client::ExecLines;
use client::api::{ExecRequest, StreamLine};
use rustix::process::Signal;
use serde_json::Value;
use testkit::{Process, exchange, wait_for};

use super::slate::assert_clean;
use super::world::{SOON, World, gone, in_time, running, shell};

#[tokio::test]
async fn commands_outlive_a_killed_server() {
    outlive("native", Signal::KILL, "600.1").await;
}

#[tokio::test]
async fn commands_outlive_a_stopped_server() {
    outlive("native", Signal::TERM, "600.2").await;
}

#[tokio::test]
async fn commands_on_mock_outlive_a_killed_server() {
    outlive("mock", Signal::KILL, "600.3").await;
}

#[tokio::test]
async fn commands_on_mock_outlive_a_stopped_server() {
    outlive("mock", Signal::TERM, "600.4").await;
}

/// `nap`: seconds that no other test sleeps.
async fn outlive(provider: &'static str, signal: Signal, nap: &str) {
    let mut world = World::new(provider);
    let server = world.start().await;
    let id = server.spawn().await;
    let ticker = "i=0; while :; do i=$((i+1)); echo $i; echo $i > t; mv t ticks; sleep 0.02; done";
    let mut ticking = server.stream(&id, ticker).await;
    in_time("a tick", ticking.next()).await.unwrap();
    // Nobody takes its output any more: it comes to its end all the same, whose code is kept.
    let flood = "sleep 0.4; head -c 5000000 /dev/zero; echo end > flood; exit 9";
    let mut flooding = server.stream(&id, flood).await;
    // The agent keeps its deadline.
    let timed = ExecRequest { timeout: Some("2s".to_owned()), ..shell(&format!("sleep {nap}")) };
    let mut napping = in_time("a nap", server.client.exec_stream(&id, &timed)).await.unwrap();
    let nap = running(&["sleep", nap]).await;

    server.end_by(signal).await;
    for lines in [&mut ticking, &mut flooding, &mut napping] {
        broke_off(lines, signal).await;
    }
    assert!(nap.is_alive(), "a command ended with its server");

    let server = world.start().await;
    let ended = async |text: &str| {
        wait_for(text, SOON, async || {
            let lines = server.client.logs(&id, 100).await.map_err(|e| e.to_string())?;
            if lines.iter().any(|l| l.ends_with(text)) { Ok(()) } else { Err(lines.join("\n")) }
        })
        .await;
    };
    ended("exited: 9").await;
    assert_eq!(server.said(&id, "cat flood").await, "end");
    ended("exited: 124 (timed out)").await;
    gone("a command past its deadline", &nap).await;
    let before: u64 = server.said(&id, "cat ticks").await.parse().unwrap();
    wait_for("the ticker to go on", SOON, async || {
        let now: u64 = server.said(&id, "cat ticks").await.parse().unwrap();
        if now > before + 2 { Ok(()) } else { Err(now) }
    })
    .await;
    assert_clean(&world, &server, &[&id]).await;
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

/// A stream whose server went has no exit code; one whose server stopped in order says so.
async fn broke_off(lines: &mut ExecLines, signal: Signal) {
    let mut last: Option<StreamLine> = None;
    let broken = loop {
        match in_time("the end of a stream", lines.next()).await {
            Ok(Some(line)) => last = Some(line),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    if signal == Signal::KILL {
        assert!(broken && last.is_none_or(|l| l.stream != "exit"));
    } else {
        let last = last.expect("a last line");
        assert!(!broken && last.stream == "exit", "{last:?}");
        assert_eq!((last.exit_code, last.error.as_deref()), (None, Some("UNAVAILABLE")));
    }
}

#[tokio::test]
async fn ready_comes_after_adoption() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no steps to wait at");
        return;
    }
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    server.kill().await;
    let hold = world.config_dir().join("hold");
    fs::write(&hold, "").unwrap();
    let held = world.launch_with(&format!("adopt.scan@{}", hold.display()));
    let addr = wait_for("the door to open", SOON, async || {
        let log = held.log();
        let events = log.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let mut opened = events.filter(|e| e["message"] == "listening");
        opened.find_map(|e| e["address"].as_str()?.parse().ok()).ok_or(log)
    })
    .await;
    let get = async |path: &str| exchange(addr, "GET", path, &[], b"").await.unwrap();
    assert_eq!(get("/api/v1/ready").await.status, 503);
    assert_eq!(get("/api/v1/health").await.status, 200);
    assert_eq!(get("/api/v1/live").await.status, 200);
    // A call that comes too early waits, or is told to come again; it is never told a lie.
    let path = format!("/api/v1/sandboxes/{id}/exec");
    let early = tokio::spawn(async move {
        let json = [("Content-Type".to_owned(), "application/json".to_owned())];
        exchange(addr, "POST", &path, &json, br#"{"command":"echo early"}"#).await.unwrap()
    });
    assert_eq!(get("/api/v1/ready").await.status, 503);
    fs::remove_file(&hold).unwrap();
    wait_for("readiness", SOON, async || match get("/api/v1/ready").await.status {
        200 => Ok(()),
        other => Err(other),
    })
    .await;
    let json = [("Content-Type".to_owned(), "application/json".to_owned())];
    let path = format!("/api/v1/sandboxes/{id}/exec");
    let done = exchange(addr, "POST", &path, &json, br#"{"command":"echo here"}"#).await.unwrap();
    assert_eq!((done.status, done.json().unwrap()["stdout"].as_str()), (200, Some("here\n")));
    let early = in_time("the early call", early).await.unwrap();
    match early.status {
        200 => assert_eq!(early.json().unwrap()["stdout"], "early\n"),
        status => assert_eq!(status, 503, "{}", early.text()),
    }
    assert_eq!(held.stop().await.code(), Some(0));
}

#[tokio::test]
async fn many_are_adopted_at_once() {
    let mut world = World::new("native");
    let server = world.start().await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(server.spawn().await);
    }
    server.kill().await;
    let server = world.start().await;
    // The first call after readiness finds every one of them.
    ids.sort();
    assert_eq!(server.ids().await.unwrap(), ids);
    let mut calls = tokio::task::JoinSet::new();
    for id in ids.clone() {
        let client = server.client.clone();
        calls.spawn(async move { client.exec(&id, &shell("echo here")).await.unwrap().stdout });
    }
    for said in calls.join_all().await {
        assert_eq!(said, "here\n");
    }
    let living: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_clean(&world, &server, &living).await;
    for id in &ids {
        server.destroy(id).await;
    }
    assert_clean(&world, &server, &[]).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn sandboxes_of_another_installation_are_not_touched() {
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    server.stop().await;
    let agent = world.agent_of(&id);
    let data = world.system.data_dir();
    let aside = world.config_dir().join("aside");
    fs::create_dir(&aside).unwrap();
    let databases = ["stacyvm.db", "stacyvm.db-wal", "stacyvm.db-shm"];
    let swap = |from: &std::path::Path, to: &std::path::Path| {
        for name in databases.iter().filter(|n| from.join(n).exists()) {
            fs::rename(from.join(name), to.join(name)).unwrap();
        }
    };
    swap(&data, &aside);
    // A new database is a new installation: it says whose sandboxes live here, and goes.
    for _ in 0..2 {
        let mut refused = world.system.launch();
        let status = refused.exit(SOON).await;
        assert_eq!(status.code(), Some(1), "{}", refused.log());
        assert!(refused.log().contains(&id), "{}", refused.log());
    }
    assert!(agent.is_alive());
    for name in databases {
        let _ = fs::remove_file(data.join(name));
    }
    swap(&aside, &data);
    let server = world.start().await;
    assert_clean(&world, &server, &[&id]).await;
    server.destroy(&id).await;
    server.stop().await;
    // Without any, it changes hands.
    swap(&data, &aside);
    let server = world.start().await;
    let other = server.spawn().await;
    assert_clean(&world, &server, &[&other]).await;
    server.destroy(&other).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn what_lived_before_the_host_was_rebooted_has_ended() {
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    let agent: Process = world.agent_of(&id);
    server.kill().await;
    // What a reboot changes: nothing runs any more, and the host bears another boot id.
    agent.kill();
    gone("the agent", &agent).await;
    let journal = world.folders().join(&id).join("journal");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&journal).unwrap();
    assert!(text.contains(boot.trim()));
    let earlier = "00000000-0000-4000-8000-000000000000";
    fs::write(&journal, text.replace(boot.trim(), earlier)).unwrap();

    let server = world.start().await;
    let ended = server.client.get(&id).await.expect_err("it has ended");
    assert_eq!(ended.status(), Some(404));
    assert!(ended.to_string().contains("rebooted"), "{ended}");
    assert_clean(&world, &server, &[]).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test]
async fn a_second_signal_ends_a_stop_at_once() {
    let mut world = World::new("mock");
    let server = world.start().await;
    let id = server.spawn().await;
    let client = server.client.clone();
    let (other, long) = (id.clone(), shell("sleep 3.125; echo end > late"));
    let asked = tokio::spawn(async move { client.exec(&other, &long).await });
    running(&["sleep", "3.125"]).await;
    let mut stopping = server.running;
    stopping.signal(Signal::TERM);
    wait_for("the stop to begin", SOON, async || {
        let log = stopping.log();
        if log.contains("stopping: sandboxes stay") { Ok(()) } else { Err(log) }
    })
    .await;
    stopping.signal(Signal::TERM);
    let status = stopping.exit(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(143), "{}", stopping.log());
    assert!(in_time("the call", asked).await.unwrap().is_err());
    let server = world.start().await;
    wait_for("the command's end", SOON, async || {
        let seen = server.sh(&id, "cat late").await;
        if seen.stdout == "end\n" { Ok(()) } else { Err(seen.stderr) }
    })
    .await;
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}
