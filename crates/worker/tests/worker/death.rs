//! Sandboxes whose PID 1 dies unasked.

use std::sync::atomic::Ordering;

use protocol::worker::{Stdin, WorkerLink};
use types::{EndedReason, ErrorCode, SandboxState};

use crate::support::{World, collect, command, wait_for};

#[tokio::test]
async fn bug_20_a_death_is_noticed_told_and_explained() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let stream = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    world.provider.kill(&id, EndedReason::Oom);
    let fault = collect(stream).await.1.unwrap_err();
    assert_eq!(fault.code, ErrorCode::SandboxDead);
    assert_eq!(fault.message, format!("sandbox {id} ran out of memory"));
    let ended = world.control.report_on(&id).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Oom, false));
    let fact = worker.status(id.clone()).await.unwrap().unwrap();
    assert_eq!((fact.state, fact.reason), (SandboxState::Error, Some(EndedReason::Oom)));
    let refused = worker.exec(command(&id, &["echo", "x"]), Stdin::Empty).await.err().unwrap();
    assert_eq!((refused.code, refused.message), (ErrorCode::SandboxDead, fault.message));
    wait_for("release of what it held", async || (!world.provider.has(&id)).then_some(())).await;
    assert!(world.folder(&id).exists(), "the record stays until it is destroyed");
    world.destroy(&worker, &id).await.unwrap();
    world.assert_gone(&id);
    assert_eq!(worker.status(id).await.unwrap(), None);
}

#[tokio::test]
async fn reports_are_repeated_until_control_takes_them() {
    let world = World::new();
    let worker = world.start().await;
    world.control.away.store(true, Ordering::SeqCst);
    let id = world.spawn(&worker, 1).await;
    world.provider.kill(&id, EndedReason::Crashed);
    wait_for("two attempts", async || {
        (world.control.refused.load(Ordering::SeqCst) >= 2).then_some(())
    })
    .await;
    world.control.away.store(false, Ordering::SeqCst);
    assert_eq!(world.control.report_on(&id).await.reason, EndedReason::Crashed);
}

#[tokio::test]
async fn a_dead_one_expires_with_the_reason_it_died_of() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    world.provider.kill(&id, EndedReason::Crashed);
    world.control.report_on(&id).await;
    world.clock.advance(std::time::Duration::from_secs(601));
    let removed = wait_for("its removal", async || {
        let ended = world.control.ended.lock().unwrap();
        ended.iter().find(|e| e.sandbox_id == id && e.removed).cloned()
    })
    .await;
    assert_eq!(removed.reason, EndedReason::Crashed);
    world.assert_gone(&id);
}
