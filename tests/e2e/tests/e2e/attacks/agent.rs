//! The agent: PID 1 inside. It cannot be crashed, stopped, starved, or spoken for.

use std::fs;
use std::time::Duration;

use client::api;
use serde_json::json;
use testkit::wait_for;

use super::control;
use super::ground::{ATTACKER, Ground, IMAGE, Target};
use super::processes::{mark, on_the_host};

const SOON: Duration = Duration::from_secs(15);

/// Works again once what starves it has ended.
async fn recovers(target: &Target<'_>) {
    // All that asks for what it took has its own end: until then it may starve a shell again.
    wait_for("the sandbox to work again", SOON, async || target.answers().await).await;
}

#[tokio::test]
async fn frames_cannot_be_forged() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let done = target.exec(&[ATTACKER, "forge"], "10s").await.unwrap();
    assert_eq!(done.exit_code, 0, "{done:?}");
    // They arrive, as what they are: output.
    assert!(done.stdout.matches("\"exit_code\":99").count() >= 40, "{done:?}");
    assert!(done.stdout.ends_with("forge held:0 written\n"), "{done:?}");
    target.is_well().await;
    ground.end().await;
}

#[tokio::test]
async fn the_console_can_be_flooded_without_harm() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let before = resident(&ground, "VmRSS");
    assert_eq!(target.try_one("flood_console=16").await.words, "held:0 written");
    let lines = target.client().logs(&target.id, 100_000).await.unwrap();
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes of console");
    // Said there or not: it is neither ended nor destroyed.
    assert_eq!(target.client().get(&target.id).await.unwrap().state, "running");
    let after = resident(&ground, "VmRSS");
    assert!(after < before + 32 * 1024, "{before} to {after} KiB");
    target.is_well().await;
    ground.end().await;
}

#[tokio::test]
async fn stopping_everything_does_not_stop_the_agent() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let stop = format!("stop_all={}", namespace.display());
    let stopped = target.exec(&[ATTACKER, &stop], "1s").await;
    assert_eq!(stopped.expect_err("nothing was stopped").status(), Some(408));
    target.is_well().await;
    ground.end().await;
}

#[tokio::test]
async fn without_a_process_left_files_still_work() {
    if !control::possible() {
        return;
    }
    let ground = Ground::with(json!({ "pids_limit": 48 })).await;
    let target = ground.spawn(IMAGE).await;
    let client = ground.client();
    target.exec(&[ATTACKER, "fork_and_stay=4"], "10s").await.unwrap();
    let refused = target.exec(&["true"], "10s").await.expect_err("there was a process left");
    assert_eq!(refused.status(), Some(429), "{refused:?}");
    client.write_file(&target.id, "/workspace/f", "kept", None).await.unwrap();
    assert_eq!(client.read_file(&target.id, "/workspace/f").await.unwrap(), "kept");
    recovers(&target).await;
    ground.end().await;
}

/// The agent is not who pays when memory runs out, whoever took it.
#[tokio::test]
async fn without_memory_the_agent_lives() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let small = api::SpawnRequest { memory_mb: Some(64), ..Default::default() };
    for filled in [false, true] {
        let target = ground.spawn_as(small.clone()).await;
        if filled {
            // As much as there is, and more than the limit of memory leaves.
            let _ = target.exec(&[ATTACKER, "fill=/dev/shm/f,200"], "20s").await;
        }
        for _ in 0..3 {
            let _ = target.exec(&[ATTACKER, "memory_bomb=400"], "20s").await;
            let state = ground.client().get(&target.id).await.unwrap();
            assert_eq!(state.state, "running", "filled: {filled}, {state:?}");
        }
        ground.client().list_files(&target.id, "/").await.unwrap();
        if filled {
            ground.client().delete_file(&target.id, "/dev/shm/f", false).await.unwrap();
        }
        recovers(&target).await;
    }
    ground.end().await;
}

/// All files gone, all folders unreadable: the agent needs none of them.
#[tokio::test]
async fn without_files_the_agent_lives() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        target.is_elsewhere().await;
        let wipe = "rm -rf /bin /etc /lib* /usr /workspace /tmp /home /root /run /sbin /var \
            2>/dev/null; rm -rf /dev/* /proc/* 2>/dev/null; chmod 0 / /workspace 2>/dev/null; :";
        let _ = target.exec(&["sh", "-c", wipe], "30s").await;
        let listed = ground.client().list_files(&target.id, "/").await.unwrap();
        assert!(listed.iter().any(|f| f.path == "/proc"), "{listed:?}");
        ground.client().write_file(&target.id, "/again", "x", None).await.unwrap();
        assert_eq!(ground.client().read_file(&target.id, "/again").await.unwrap(), "x");
        let gone = target.exec(&["sh", "-c", ":"], "10s").await;
        let said = gone.as_ref().map_or_else(|e| e.code() == Some("FILE_NOT_FOUND"), |_| true);
        assert!(said, "{gone:?}");
        ground.client().destroy(&target.id, None).await.unwrap();
    }
    ground.end().await;
}

/// KiB of the server.
fn resident(ground: &Ground, line: &str) -> u64 {
    let path = format!("/proc/{}/status", ground.server().pid());
    let status = fs::read_to_string(path).unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    value.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// What runs inside waits for its readers: its clocks stand still.
async fn are_blocked(mark: &str) {
    let (mut last, mut same) = (Vec::new(), 0);
    let used = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().map(|s| s.split(' ').skip(11).take(2).collect::<String>())
    };
    wait_for("the writers to be held up", SOON, async || {
        let now: Vec<_> = on_the_host(mark).into_iter().map(|(pid, _)| used(pid)).collect();
        same = if now == last && !now.is_empty() { same + 1 } else { 0 };
        last = now;
        if same >= 20 { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
}

#[tokio::test]
async fn output_without_end_does_not_fill_the_server() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    // A client that asks for a stream and does not read.
    let before = resident(&ground, "VmRSS");
    let mark = mark(21);
    let endless =
        api::ExecRequest { command: Some(format!("exec yes {mark}")), ..Default::default() };
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(ground.client().exec_stream(&target.id, &endless).await.unwrap());
    }
    are_blocked(&mark).await;
    let after = resident(&ground, "VmRSS");
    assert!(after < before + 24 * 1024, "unread streams: {before} to {after} KiB");
    drop(streams);
    // Captured: 16 MiB are kept of each stream, however much is written.
    let both = "yes & yes >&2";
    let _ = target.exec(&["sh", "-c", both], "2s").await;
    let most = resident(&ground, "VmHWM");
    assert!(most < before + 160 * 1024, "captured: {before} to {most} KiB");
    target.is_well().await;
    ground.end().await;
}

#[tokio::test]
async fn descriptors_run_out_inside_only() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let (target, neighbour) = (ground.spawn(IMAGE).await, ground.spawn(IMAGE).await);
    let hogs = format!("for i in 1 2 3 4; do {ATTACKER} fill_descriptors & done; wait");
    for line in target.shell(&hogs).await.lines() {
        assert!(line.starts_with("fill_descriptors held:EMFILE n="), "{line}");
    }
    target.is_well().await;
    neighbour.is_well().await;
    ground.end().await;
}
