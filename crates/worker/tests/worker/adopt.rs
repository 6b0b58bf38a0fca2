//! After a restart: what lives is taken back, the rest is cleared away, what is another's is left.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::worker::WorkerLink;
use types::{EndedReason, ErrorCode, SandboxId, SandboxState};

use crate::support::{World, forgotten, id, run, wait_for};

/// Ends a worker as a crash does: nothing is said, to anyone.
async fn crash(worker: std::sync::Arc<worker::Worker>) {
    worker.shutdown().await;
    drop(worker);
}

#[tokio::test]
async fn a_living_sandbox_is_taken_back_with_its_deadline_and_generation() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let end = world.order(&id).expires_at.saturating_add(Duration::from_secs(60));
    worker.extend(id.clone(), world.lease(&id, 4), end).await.unwrap();
    crash(worker).await;

    let worker = world.start().await;
    let facts = worker.inventory().await.unwrap();
    assert_eq!(facts.len(), 1);
    assert_eq!((facts[0].state, facts[0].generation), (SandboxState::Running, 4));
    assert_eq!(facts[0].expires_at, end);
    assert_eq!(*world.provider.adopted.lock().unwrap(), std::slice::from_ref(&id));
    assert_eq!(*world.provider.swept_with.lock().unwrap(), std::slice::from_ref(&id));
    run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    let older = worker.destroy(id.clone(), world.lease(&id, 3), EndedReason::Destroyed, None).await;
    assert_eq!(older.unwrap_err().code, ErrorCode::Conflict);
    // Its death is noticed as before, and so is its end.
    world.clock.advance(Duration::from_secs(661));
    assert_eq!(world.control.report_on(&id).await.reason, EndedReason::Expired);
    world.assert_gone(&id);
}

#[tokio::test]
async fn one_that_died_meanwhile_lies_there_and_one_whose_time_was_up_is_gone() {
    let world = World::new();
    let worker = world.start().await;
    let (dead, lost, over) = (
        world.spawn(&worker, 1).await,
        world.spawn(&worker, 2).await,
        world.spawn(&worker, 3).await,
    );
    let soon = world.order(&over).expires_at.saturating_add(Duration::from_secs(1));
    for id in [&dead, &lost] {
        let later = soon.saturating_add(Duration::from_secs(1000));
        worker.extend(id.clone(), world.lease(id, 1), later).await.unwrap();
    }
    crash(worker).await;
    world.provider.kill(&dead, EndedReason::Oom);
    world.provider.lose(&lost);
    world.clock.advance(Duration::from_secs(700));

    let worker = world.start().await;
    let ended = world.control.report_on(&dead).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Oom, false));
    assert_eq!(world.control.report_on(&lost).await.reason, EndedReason::Crashed);
    let ended = world.control.report_on(&over).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Expired, true));
    world.assert_gone(&over);
    let fact = worker.status(dead.clone()).await.unwrap().unwrap();
    assert_eq!((fact.state, fact.reason), (SandboxState::Error, Some(EndedReason::Oom)));
    crash(worker).await;

    // Once more: the journal remembers the death, though nothing else does.
    let worker = world.start().await;
    let fact = worker.status(dead.clone()).await.unwrap().unwrap();
    assert_eq!((fact.state, fact.reason), (SandboxState::Error, Some(EndedReason::Oom)));
    world.destroy(&worker, &dead).await.unwrap();
    world.assert_gone(&dead);
}

/// Cuts a journal after its first lines, and adds text.
fn rewrite(world: &World, id: &SandboxId, keep: usize, add: &str) {
    let path = world.folder(id).join("journal");
    let text = fs::read_to_string(&path).unwrap();
    let kept: String = text.lines().take(keep).map(|l| format!("{l}\n")).collect();
    fs::write(path, kept + add).unwrap();
}

#[tokio::test]
async fn unfinished_work_is_undone_or_completed() {
    let world = World::new();
    let worker = world.start().await;
    let (half, going) = (world.spawn(&worker, 1).await, world.spawn(&worker, 2).await);
    crash(worker).await;
    rewrite(&world, &half, 1, "{\"v\":1,\"step\":{\"runn");
    rewrite(&world, &going, 2, "{\"v\":1,\"step\":{\"destroying\":{\"reason\":\"unanswered\"}}}\n");

    // Control is away: until it knows how they ended, whoever looks is told.
    world.control.away.store(true, Ordering::SeqCst);
    let worker = world.start().await;
    let mut told: Vec<_> = worker.inventory().await.unwrap();
    told.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    let told: Vec<_> = told.into_iter().map(|f| (f.sandbox_id, f.state, f.reason)).collect();
    let gone = |id: &SandboxId, why| (id.clone(), SandboxState::Destroyed, Some(why));
    let wanted = [gone(&half, EndedReason::SpawnFailed), gone(&going, EndedReason::Unanswered)];
    assert_eq!(told, wanted);
    assert_eq!(worker.status(half.clone()).await.unwrap().unwrap().reason, told[0].2);
    world.control.away.store(false, Ordering::SeqCst);
    let ended = world.control.report_on(&half).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::SpawnFailed, true));
    assert_eq!(world.control.report_on(&going).await.reason, EndedReason::Unanswered);
    forgotten(&worker, &half).await;
    forgotten(&worker, &going).await;
    world.assert_gone(&half);
    world.assert_gone(&going);
}

#[tokio::test]
async fn a_reboot_of_the_host_ends_what_ran() {
    let mut world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    crash(worker).await;
    world.config.boot_id = Some("boot-2".to_owned());
    let worker = world.start().await;
    let ended = world.control.report_on(&id).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::HostRebooted, true));
    forgotten(&worker, &id).await;
    world.assert_gone(&id);
}

#[tokio::test]
async fn living_sandboxes_of_another_installation_are_never_touched() {
    let mut world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    crash(worker).await;
    world.config.installation_id = "there".to_owned();
    let fault = world.try_start().await.err().unwrap();
    assert!(fault.message.contains(id.as_str()), "{}", fault.message);
    assert!(world.provider.has(&id) && world.folder(&id).exists());
    // Once it is dead the folder changes hands.
    world.provider.kill(&id, EndedReason::Crashed);
    let worker = world.start().await;
    assert!(worker.inventory().await.unwrap().is_empty());
    world.assert_gone(&id);
    assert!(world.control.ended.lock().unwrap().is_empty(), "it was never ours to report");
}

#[tokio::test]
async fn strays_are_removed_and_newer_journals_refused() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    crash(worker).await;
    let empty = world.folder(&self::id(2));
    let torn = world.folder(&self::id(3));
    for dir in [&empty, &torn] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(torn.join("journal"), "{\"v\":1,\"step\":{\"int").unwrap();
    fs::write(torn.join("agent.sock"), "").unwrap();
    let foreign = world.config.dir.join("sandboxes").join("NOT an id");
    fs::create_dir(&foreign).unwrap();
    let worker = world.start().await;
    assert_eq!(worker.inventory().await.unwrap().len(), 1);
    assert!(!empty.exists() && !torn.exists() && foreign.exists());
    crash(worker).await;

    rewrite(&world, &id, 2, "{\"v\":2,\"step\":{}}\n");
    let fault = world.try_start().await.err().unwrap();
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert!(world.provider.has(&id) && world.folder(&id).exists());
}

#[tokio::test]
async fn an_adopted_sandbox_is_watched() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    crash(worker).await;
    let worker = world.start().await;
    worker.inventory().await.unwrap();
    world.provider.kill(&id, EndedReason::Crashed);
    world.control.report_on(&id).await;
    let state = wait_for("the news", async || worker.status(id.clone()).await.unwrap()).await.state;
    assert_eq!(state, SandboxState::Error);
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods)] // it is the time of the machine that counts here
async fn a_thousand_are_adopted_within_two_seconds() {
    let world = World::new();
    let worker = world.start().await;
    for n in 0..1000 {
        world.spawn(&worker, n).await;
    }
    crash(worker).await;
    let before = Instant::now();
    let worker = world.start().await;
    assert_eq!(worker.inventory().await.unwrap().len(), 1000);
    let took = before.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}
