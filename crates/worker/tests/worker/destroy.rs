//! Destroying: until it is done, once, and honestly told to who uses the sandbox.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::worker::{Stdin, WorkerLink};
use types::{EndedReason, ErrorCode};

use crate::support::{Step, World, collect, command, id, wait_for, within};

#[tokio::test]
async fn unknown_ones_are_destroyed_already() {
    let world = World::new();
    let worker = world.start().await;
    world.destroy(&worker, &id(1)).await.unwrap();
    assert_eq!(world.provider.destroys.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn two_destroys_are_one() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let (a, b) = tokio::join!(world.destroy(&worker, &id), world.destroy(&worker, &id));
    a.unwrap();
    b.unwrap();
    assert_eq!(world.provider.destroys.load(Ordering::SeqCst), 1);
    world.assert_gone(&id);
}

#[tokio::test]
async fn bug_17_a_failed_destroy_is_told_and_repeated_until_done() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    world.provider.fail(Step::Destroy, 2);
    let fault = world.destroy(&worker, &id).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert!(world.provider.has(&id));
    let ended = world.control.report_on(&id).await;
    assert_eq!((ended.reason, ended.removed), (EndedReason::Destroyed, true));
    world.assert_gone(&id);
}

#[tokio::test]
async fn a_command_of_a_destroyed_sandbox_breaks_and_never_exits() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let stream = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    world.destroy(&worker, &id).await.unwrap();
    let fault = collect(stream).await.1.unwrap_err();
    assert_eq!(fault.code, ErrorCode::SandboxDead);
    assert_eq!(fault.message, format!("sandbox {id} was destroyed"));
}

#[tokio::test]
async fn grace_asks_commands_to_end() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let stream = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    let agent = world.provider.agent(&id);
    let (lease, grace) = (world.lease(&id, 1), Some(Duration::from_secs(15)));
    let destroy = worker.destroy(id.clone(), lease, EndedReason::Destroyed, grace);
    let (destroyed, (_, end)) =
        within("the destroy", async { tokio::join!(destroy, collect(stream)) }).await;
    destroyed.unwrap();
    assert_eq!(end.unwrap().exit_code, 3, "it ended by itself, before the grace was over");
    assert_eq!(*agent.signals.lock().unwrap(), ["TERM"]);
    world.assert_gone(&id);
}

#[tokio::test]
async fn a_destroy_goes_on_when_its_caller_leaves() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let mut destroy = Box::pin(world.destroy(&worker, &id));
    assert!(futures_util::poll!(&mut destroy).is_pending());
    drop(destroy);
    wait_for("the end", async || (!world.folder(&id).exists()).then_some(())).await;
}
