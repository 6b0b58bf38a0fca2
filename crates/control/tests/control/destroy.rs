//! Destroying: idempotent, joined, never taken back and never pretended.

use std::sync::Arc;
use std::time::Duration;

use control::{Context, Destroyed, Finding};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use types::{EndedReason, ErrorCode, SandboxState, TenantId};

use crate::support::{Act, StoreAct, System, code, row, wait_until};

fn tenant(name: &str) -> Context {
    Context { tenant: Some(TenantId::parse(name).unwrap()), owner: None }
}

#[tokio::test(start_paused = true)]
async fn twice_or_never_there_is_done_too() {
    let s = System::start().await;
    let made = s.spawn().await;
    let before = s.store.writes();
    let (control, ctx) = (&s.control, &s.ctx);
    let destroy = |id: String| async move { control.destroy(ctx, &id, None).await };
    let id = made.id.to_string();
    assert_eq!(destroy(id.clone()).await.unwrap(), Destroyed::Done);
    assert_eq!(s.store.writes() - before, 2);
    assert_eq!(s.store.row(&made.id).state, SandboxState::Destroyed);
    assert_eq!(destroy(id.clone()).await.unwrap(), Destroyed::Done);
    assert_eq!(destroy("sb-00000000".into()).await.unwrap(), Destroyed::Done);
    assert_eq!(destroy("../../etc".into()).await.unwrap(), Destroyed::Done);
    assert_eq!(s.worker.calls("destroy"), 1);
    let fault = s.control.sandbox(&s.ctx, &id).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::NotFound);
    assert!(fault.message.contains("was destroyed"), "{fault}");
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn another_tenants_is_not_there() {
    let s = System::start().await;
    let mine = tenant("t1");
    let made = s.control.spawn(&mine, Default::default()).await.unwrap();
    let id = made.id.as_str();
    let other = tenant("t2");
    let unknown = s.control.sandbox(&other, "sb-00000000").await.unwrap_err();
    let masked = s.control.sandbox(&other, id).await.unwrap_err();
    assert_eq!(masked.message.replace(id, "sb-00000000"), unknown.message);
    assert_eq!(code(s.control.destroy(&other, id, None).await), ErrorCode::NotFound);
    assert_eq!(code(s.control.destroy(&other, "sb-00000000", None).await), ErrorCode::NotFound);
    assert_eq!(code(s.control.destroy(&other, "..", None).await), ErrorCode::NotFound);
    assert!(s.control.sandboxes(&other).await.unwrap().is_empty());
    assert_eq!(s.control.sandboxes(&mine).await.unwrap().len(), 1);
    assert_eq!(s.control.sandboxes(&s.ctx).await.unwrap().len(), 1);
    s.control.destroy(&mine, id, None).await.unwrap();
    // Once it is gone, a stranger still learns nothing about how.
    let masked = s.control.sandbox(&other, id).await.unwrap_err();
    assert_eq!(masked.message.replace(id, "sb-00000000"), unknown.message);
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_join() {
    let s = System::start().await;
    let made = s.spawn().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.always("destroy", Act::Wait(gate.clone()));
    gate.add_permits(1);
    let id = made.id.as_str();
    let all = join_all((0..16).map(|_| s.control.destroy(&s.ctx, id, None))).await;
    assert!(all.into_iter().all(|d| d.unwrap() == Destroyed::Done));
    assert_eq!(s.worker.calls("destroy"), 1);
}

#[tokio::test(start_paused = true)]
async fn bug_17_a_failing_provider_is_not_swallowed() {
    for failure in [Act::Fail(ErrorCode::InternalError), Act::Hang] {
        let s = System::start().await;
        let made = s.spawn().await;
        s.worker.always("destroy", failure);
        let began = tokio::time::Instant::now();
        let told = s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
        assert_eq!(told, Destroyed::Underway);
        assert!(began.elapsed() <= Duration::from_secs(10) + Duration::from_millis(50));
        assert_eq!(s.store.row(&made.id).state, SandboxState::Destroying);
        let shown = s.control.sandbox(&s.ctx, made.id.as_str()).await.unwrap();
        assert_eq!(shown.state, SandboxState::Destroying);
        assert!(s.worker.holds(&made.id));
        s.worker.heal();
        // Rests are counted on the injected clock.
        s.clock.advance(Duration::from_secs(120));
        s.is_clean().await;
        assert_eq!(s.store.row(&made.id).ended_reason, Some(EndedReason::Destroyed));
    }
}

#[tokio::test(start_paused = true)]
async fn one_hiccup_is_not_seen() {
    let s = System::start().await;
    let made = s.spawn().await;
    s.worker.next("destroy", Act::FailAfter(ErrorCode::InternalError));
    let told = s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
    assert_eq!(told, Destroyed::Done);
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_the_intent_says_503_and_nothing_happens() {
    for act in [StoreAct::Busy, StoreAct::Full] {
        let s = System::start().await;
        let made = s.spawn().await;
        s.store.next("change", act);
        let told = s.control.destroy(&s.ctx, made.id.as_str(), None).await;
        assert_eq!(code(told), ErrorCode::Unavailable);
        assert!(s.worker.holds(&made.id));
        assert_eq!(s.store.row(&made.id).state, SandboxState::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_stops_nothing() {
    let s = System::start().await;
    let made = s.spawn().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("destroy", Act::Wait(gate.clone()));
    let control = s.control.clone();
    let id = made.id.to_string();
    let call = tokio::spawn(async move { control.destroy(&Context::default(), &id, None).await });
    wait_until("it is at the worker", || s.worker.calls("destroy") == 1).await;
    call.abort();
    assert!(call.await.is_err());
    gate.add_permits(1);
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn prune_takes_what_is_due_and_of_its_tenant() {
    let s = System::start().await;
    // No background task may be faster.
    s.control.shutdown().await;
    let past = s.clock_past();
    for (name, owner, due) in
        [("sb-a", "t1", true), ("sb-b", "t2", true), ("sb-c", "t1", false), ("sb-d", "t1", true)]
    {
        let mut row = row(name);
        row.tenant_id = Some(TenantId::parse(owner).unwrap());
        if due {
            row.expires_at = past;
        }
        s.worker.hold(crate::support::fact(&row));
        s.store.put(row);
    }
    assert_eq!(s.control.prune(&tenant("t1"), Finding::default()).await.unwrap(), 2);
    assert_eq!(s.control.prune(&tenant("t1"), Finding::default()).await.unwrap(), 0);
    assert_eq!(s.control.prune(&s.ctx, Finding::default()).await.unwrap(), 1);
    let left: Vec<_> = s.store.live().into_iter().map(|r| r.id.to_string()).collect();
    assert_eq!(left, ["sb-c"]);
    let ended = s.store.row(&row("sb-a").id).ended_reason;
    assert_eq!(ended, Some(EndedReason::Expired));
}
