//! The cases, each on fresh ground.

use std::time::Duration;

use providers::{Liveness, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use types::clock::{Clock, SystemClock};
use types::{EndedReason, ErrorCode};

use crate::ground::{Ground, until};

const LIMIT: Duration = Duration::from_secs(20);

/// PID 1 of a sandbox, as the journal has it.
fn pid(runtime: &Runtime) -> Pid {
    let pid = runtime.facts["made"]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).filter(|p| p.as_raw_pid() > 1).unwrap()
}

/// A zombie counts as gone: the test's own init may be slow to reap.
async fn until_gone(pid: Pid) {
    until("it runs on", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
        match stat {
            Ok(text) if !text.contains(") Z ") => Err(text),
            _ => Ok(()),
        }
    })
    .await;
}

async fn wait(ground: &Ground, runtime: &Runtime) -> EndedReason {
    tokio::time::timeout(LIMIT, ground.provider().wait(runtime)).await.expect("its end is not seen")
}

pub async fn it_lives_runs_commands_and_goes_without_a_trace(ground: Ground) {
    let provider = ground.shared();
    provider.probe().await.unwrap();
    let sandbox = ground.create().await;
    let mut client = ground.client(&sandbox).await;
    let (done, output) = client.sh("echo out; echo err >&2; pwd; exit 3").await;
    assert_eq!(done.exit_code, 3);
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].ends_with("/workspace") && lines[1..] == ["err", "out"], "{output}");
    let (_, hostname) = client.sh("hostname 2>/dev/null || cat /proc/sys/kernel/hostname").await;
    assert_eq!(hostname.trim() == sandbox.id.as_str(), ground.is_native(), "{hostname}");
    let (_, environment) = client.sh("env").await;
    assert!(!environment.contains("CARGO"), "the server's environment is inside: {environment}");

    assert_eq!(provider.inspect(&sandbox).await.unwrap(), Liveness::Alive);
    let stats = provider.stats(&sandbox).await.unwrap();
    let said = provider.capabilities();
    for (word, number) in [
        ("memory_limit", stats.memory_limit_bytes),
        ("memory_limit", stats.memory_bytes),
        ("pids_limit", stats.pids),
    ] {
        assert!(number.is_some_and(|n| n > 0) || !said.iter().any(|c| c == word), "{stats:?}");
    }

    provider.destroy(&sandbox.id, Some(&sandbox)).await.unwrap();
    until_gone(pid(&sandbox)).await;
    provider.destroy(&sandbox.id, Some(&sandbox)).await.expect("a second time changes nothing");
    provider.destroy(&sandbox.id, None).await.expect("by id alone neither");
    assert_eq!(provider.inspect(&sandbox).await.unwrap(), Liveness::Gone);
    assert!(provider.connect(&sandbox).await.is_err());
    ground.assert_no_trace(&sandbox.id).await;
    drop(provider);
    ground.close().await;
}

pub async fn it_is_destroyed_by_its_id_alone(ground: Ground) {
    let sandbox = ground.create().await;
    let mut client = ground.client(&sandbox).await;
    client.sh("(setsid sleep 300 >/dev/null 2>&1 &); true").await;
    ground.provider().destroy(&sandbox.id, None).await.unwrap();
    until_gone(pid(&sandbox)).await;
    let _ = std::fs::remove_file(sandbox.dir.join("agent.sock")); // its folder is the worker's
    ground.assert_no_trace(&sandbox.id).await;
    ground.close().await;
}

pub async fn the_end_of_its_first_process_is_seen_and_named(ground: Ground) {
    let (sandbox, other) = (ground.create().await, ground.create().await);
    let waiting = ground.provider().wait(&sandbox);
    kill_process(pid(&sandbox), Signal::KILL).unwrap();
    let why = tokio::time::timeout(LIMIT, waiting).await.expect("its end is not seen");
    assert_eq!(why, EndedReason::Crashed);
    let dead = Liveness::Dead(EndedReason::Crashed);
    assert_eq!(ground.provider().inspect(&sandbox).await.unwrap(), dead);
    assert_eq!(wait(&ground, &sandbox).await, EndedReason::Crashed);
    let refused = ground.provider().connect(&sandbox).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::SandboxDead);
    assert_eq!(ground.provider().inspect(&other).await.unwrap(), Liveness::Alive);
    for sandbox in [&sandbox, &other] {
        ground.provider().destroy(&sandbox.id, Some(sandbox)).await.unwrap();
        ground.assert_no_trace(&sandbox.id).await;
    }
    ground.close().await;
}

pub async fn its_deadline_ends_it(ground: Ground) {
    let mut spec = ground.spec().await;
    spec.deadline = SystemClock.boot().saturating_add(Duration::from_millis(300));
    let sandbox = ground.provider().create(spec).await.unwrap();
    assert_eq!(wait(&ground, &sandbox).await, EndedReason::Expired);
    until_gone(pid(&sandbox)).await;
    ground.provider().destroy(&sandbox.id, Some(&sandbox)).await.unwrap();
    ground.assert_no_trace(&sandbox.id).await;
    ground.close().await;
}

pub async fn it_is_adopted_by_the_next_server(mut ground: Ground) {
    let old = ground.create().await;
    ground
        .client(&old)
        .await
        .sh("echo kept > /workspace/file 2>/dev/null || echo kept > file")
        .await;
    ground.restart().await;
    let old: Runtime = serde_json::from_value(serde_json::to_value(&old).unwrap()).unwrap();
    assert_eq!(ground.provider().inspect(&old).await.unwrap(), Liveness::Alive);
    ground.provider().adopt(&old).await.unwrap();
    let (_, file) = ground.client(&old).await.sh("cat file").await;
    assert_eq!(file, "kept\n");
    let new = ground.create().await;
    let slot = |r: &Runtime| r.facts["made"]["slot"].as_u64();
    assert!(slot(&new).is_none() || slot(&new) != slot(&old), "two sandboxes share their ids");
    let waiting = ground.provider().wait(&old);
    ground.provider().destroy(&old.id, Some(&old)).await.unwrap();
    tokio::time::timeout(LIMIT, waiting).await.expect("its end is not seen");
    ground.assert_no_trace(&old.id).await;
    assert_eq!(ground.client(&new).await.sh("true").await.0.exit_code, 0);
    ground.provider().destroy(&new.id, Some(&new)).await.unwrap();
    ground.close().await;
}

pub async fn a_sweep_removes_what_nobody_claims_and_nothing_else(mut ground: Ground) {
    let (kept, lost) = (ground.create().await, ground.create().await);
    let swept = ground.provider().sweep(&[]).await.unwrap();
    assert_eq!(swept, 0, "what this very process made is claimed");
    ground.restart().await;
    let neighbour = match ground.is_native() {
        true => Ground::native().await.unwrap(),
        false => Ground::mock().await,
    };
    let theirs = neighbour.create().await;
    assert_eq!(ground.provider().sweep(std::slice::from_ref(&kept.id)).await.unwrap(), 1);
    until_gone(pid(&lost)).await;
    assert_eq!(ground.provider().inspect(&kept).await.unwrap(), Liveness::Alive);
    assert_eq!(neighbour.provider().inspect(&theirs).await.unwrap(), Liveness::Alive);
    assert_eq!(ground.provider().sweep(std::slice::from_ref(&kept.id)).await.unwrap(), 0);
    ground.provider().destroy(&lost.id, Some(&lost)).await.unwrap();
    ground.assert_no_trace(&lost.id).await;
    ground.provider().destroy(&kept.id, Some(&kept)).await.unwrap();
    neighbour.provider().destroy(&theirs.id, Some(&theirs)).await.unwrap();
    neighbour.close().await;
    ground.close().await;
}

pub async fn a_tied_one_ends_with_its_server(mut ground: Ground) {
    let mut spec = ground.spec().await;
    spec.tied = true;
    let tied = ground.provider().create(spec).await.unwrap();
    let free = ground.create().await;
    ground.client(&tied).await.sh("true").await;
    ground.drop_provider();
    until_gone(pid(&tied)).await;
    ground.restart().await;
    assert_eq!(ground.provider().inspect(&free).await.unwrap(), Liveness::Alive);
    for sandbox in [&tied, &free] {
        ground.provider().destroy(&sandbox.id, Some(sandbox)).await.unwrap();
        ground.assert_no_trace(&sandbox.id).await;
    }
    ground.close().await;
}

pub async fn what_could_not_be_made_leaves_nothing(ground: Ground) {
    let mut spec = ground.spec().await;
    let id = spec.id.clone();
    if ground.is_native() {
        spec.image.layers = vec!["no-such-layer".into()];
    } else {
        std::fs::remove_dir(&spec.dir).unwrap();
        spec.dir = "/proc/nowhere".into();
    }
    let fault = ground.provider().create(spec).await.expect_err("it can't be made");
    assert!(!fault.message.contains('/'), "a host path is in it: {}", fault.message);
    ground.assert_no_trace(&id).await;
    let next = ground.create().await;
    ground.provider().destroy(&next.id, Some(&next)).await.unwrap();
    ground.close().await;
}

pub async fn many_are_made_at_once(ground: Ground) {
    let mut making = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (provider, spec) = (ground.shared(), ground.spec().await);
        making.spawn(async move { provider.create(spec).await.unwrap() });
    }
    let made = making.join_all().await;
    let mut slots: Vec<_> = made.iter().filter_map(|r| r.facts["made"]["slot"].as_u64()).collect();
    let many = slots.len();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), many, "two sandboxes share their ids");
    let mut ending = tokio::task::JoinSet::new();
    for sandbox in made {
        assert_eq!(ground.client(&sandbox).await.sh("exit 7").await.0.exit_code, 7);
        let provider = ground.shared();
        ending.spawn(async move {
            provider.destroy(&sandbox.id, Some(&sandbox)).await.unwrap();
            sandbox
        });
    }
    for sandbox in ending.join_all().await {
        ground.assert_no_trace(&sandbox.id).await;
    }
    ground.close().await;
}

/// 32 MiB, as the ground asks for.
pub async fn its_disk_is_limited(ground: Ground) {
    assert!(ground.provider().capabilities().iter().any(|c| c == "disk_limit"));
    let sandbox = ground.create().await;
    let mut client = ground.client(&sandbox).await;
    let script = "head -c 20000000 /dev/zero > a && head -c 40000000 /dev/zero > b";
    let (done, output) = client.sh(script).await;
    assert_ne!(done.exit_code, 0, "60 MB were written");
    assert!(!done.oom_killed, "{output}");
    let (_, sizes) = client.sh("cat a b | wc -c").await;
    let written: u64 = sizes.trim().parse().unwrap();
    assert!((20_000_000..=33 << 20).contains(&written), "{written}, {output}");
    ground.provider().destroy(&sandbox.id, Some(&sandbox)).await.unwrap();
    ground.assert_no_trace(&sandbox.id).await;
    ground.close().await;
}
