//! Memory, CPUs, processes and disk: each limit is exceeded, and holds.

use std::fs;
use std::path::PathBuf;

use client::api;
use serde_json::json;

use super::control::{self, Control};
use super::ground::{ATTACKER, Ground, IMAGE, Target};
use super::program::verdicts;

async fn words(ground: &Ground) -> Vec<String> {
    let providers = ground.client().providers().await.unwrap();
    providers.into_iter().find(|p| p.name == "native").map(|p| p.capabilities).unwrap_or_default()
}

#[tokio::test]
async fn processes() {
    if !control::possible() {
        return;
    }
    let ground = Ground::with(json!({ "pids_limit": 40 })).await;
    assert!(words(&ground).await.contains(&"pids_limit".to_owned()));
    let target = ground.spawn(IMAGE).await;
    let seen = target.try_one("fork_bomb").await;
    assert_eq!(seen.error(), Some("EAGAIN"), "{seen:?}");
    assert!((20..40).contains(&seen.count().unwrap()), "{seen:?}");
    target.is_well().await;
    // Threads are processes, too, and shells' bombs end as well.
    let bomb = target.exec(&["sh", "-c", "f(){ f|f& }; f; sleep 1"], "3s").await;
    println!("a shell's bomb: {bomb:?}");
    let without = Control::Root.run(&["fork_bomb=200"]).unwrap();
    assert!(without[0].broke(), "{without:?}");
    ground.end().await;
}

#[tokio::test]
async fn memory() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    assert!(words(&ground).await.contains(&"memory_limit".to_owned()));
    let small =
        api::SpawnRequest { memory_mb: Some(64), disk_size_mb: Some(16), ..Default::default() };
    let target = ground.spawn_as(small).await;
    assert_eq!(target.try_one("memory=40").await.words, "broke:40 MiB", "less than the limit");
    let request = [ATTACKER, "memory=160"];
    let done = target.exec(&request, "20s").await.unwrap();
    assert!(done.stdout.contains("memory=160 died:SIGKILL") || done.oom_killed, "{done:?}");
    // By the command itself: it is told apart from another kill.
    let script =
        format!("exec {ATTACKER} linger & exec sh -c 'a=xxxxxxxx; while :; do a=$a$a; done'");
    let done = target.exec(&["sh", "-c", &script], "20s").await.unwrap();
    assert!(done.oom_killed && done.exit_code == 137, "{done:?}");
    // Shared memory is memory.
    let done = target.exec(&[ATTACKER, "fill=/dev/shm/f,200"], "20s").await.unwrap();
    let stopped =
        verdicts(&done.stdout).first().is_some_and(|v| v.count().is_some_and(|n| n <= 64));
    assert!(done.oom_killed || stopped || done.stdout.contains("died:SIGKILL"), "{done:?}");
    target.client().delete_file(&target.id, "/dev/shm/f", false).await.unwrap();
    target.is_well().await;
    let without = Control::User.run(&["memory=160"]).unwrap();
    assert!(without[0].broke(), "{without:?}");
    ground.end().await;
}

/// What files of a sandbox's control groups say.
fn in_its_cgroups(target: &Target<'_>, files: &[&str]) -> Vec<String> {
    let mut stack = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(dir) = stack.pop() {
        if dir.ends_with(&target.id) {
            let read = files.iter().filter_map(|f| fs::read_to_string(dir.join(f)).ok());
            found.extend(read.map(|text| text.trim().to_owned()));
        }
        let below = fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path());
        stack.extend(below.filter(|p| p.is_dir() && !p.is_symlink()));
    }
    found
}

#[tokio::test]
async fn cpus() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    assert!(words(&ground).await.contains(&"cpu_limit".to_owned()));
    let one = api::SpawnRequest { vcpus: Some(1), ..Default::default() };
    let target = ground.spawn_as(one).await;
    let seen = target.try_one("burn").await;
    let used = seen.count().unwrap();
    assert!(used <= 120, "{used} hundredths of a CPU: {seen:?}");
    // The quota that the kernel holds it to, too: on a busy machine nobody gets more than that.
    let quota = in_its_cgroups(&target, &["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota.iter().any(|q| q == "100000" || q == "100000 100000"), "{quota:?}");
    let without = Control::User.run(&["burn"]).unwrap();
    println!("without the limit: {without:?}");
    ground.end().await;
}

const DISK_MB: u64 = 24;

/// Wherever it is written, it is the same room.
async fn disk_is_bounded(target: &Target<'_>) {
    for path in ["/workspace/a", "/tmp/b", "/root/c", "/var/tmp/d"] {
        let seen = target.try_one(&format!("fill={path},200")).await;
        assert!(matches!(seen.error(), Some("ENOSPC" | "EDQUOT")), "{seen:?}");
        assert!(seen.count().unwrap_or(0) <= DISK_MB, "{seen:?}");
    }
    let all = "du -sm /workspace /tmp /root /var/tmp | awk '{s+=$1} END {print s}'";
    let used: u64 = target.shell(all).await.trim().parse().unwrap();
    // The disk store counts an extent when it is written out: a little more than the limit fits.
    assert!((DISK_MB / 2..=DISK_MB + DISK_MB / 4).contains(&used), "{used} MiB");
    let more = "x".repeat(2 << 20);
    let refused = target.client().write_file(&target.id, "/workspace/e", &more, None).await;
    let refused = refused.expect_err("there was room");
    assert_eq!(refused.code(), Some("DISK_FULL"), "{refused:?}");
    target.shell("rm -f /workspace/a /tmp/b /root/c /var/tmp/d").await;
    target.client().write_file(&target.id, "/workspace/e", &more, None).await.unwrap();
}

async fn inodes_are_bounded(target: &Target<'_>) {
    let seen = target.try_one("fill_inodes=/workspace/many,400000").await;
    assert!(matches!(seen.error(), Some("ENOSPC" | "EDQUOT")), "{seen:?}");
    println!("{seen:?}");
    target.is_well().await;
}

async fn disk(storage: &str) {
    if !control::possible() {
        return;
    }
    let ground = Ground::with(json!({ "storage": storage, "storage_size_mb": 1024 })).await;
    assert!(words(&ground).await.contains(&"disk_limit".to_owned()));
    let request = api::SpawnRequest {
        disk_size_mb: Some(i64::try_from(DISK_MB).unwrap()),
        memory_mb: Some(64),
        ..Default::default()
    };
    let (target, neighbour) =
        (ground.spawn_as(request.clone()).await, ground.spawn_as(request).await);
    disk_is_bounded(&target).await;
    inodes_are_bounded(&target).await;
    // The neighbour's room is its own.
    let seen = neighbour.try_one("fill=/workspace/a,8").await;
    assert_eq!(seen.words, "broke:8 MiB");
    ground.end().await;
}

#[tokio::test]
async fn disk_on_tmpfs() {
    disk("tmpfs").await;
}

#[tokio::test]
async fn disk_on_the_store() {
    disk("disk").await;
}
