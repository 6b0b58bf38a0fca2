//! Spawning: what one gets, what is refused, and what is left when a step fails.

use std::sync::Arc;
use std::time::Duration;

use control::{Context, SpawnInput};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use types::{EndedReason, ErrorCode, OwnerId, SandboxState, TenantId};

use crate::support::{Act, StoreAct, System, code, config, input, wait_until};

#[tokio::test(start_paused = true)]
async fn defaults_are_filled_in_with_two_writes() {
    let s = System::start().await;
    let before = s.store.writes();
    let made = s.spawn().await;
    assert_eq!(s.store.writes() - before, 2);
    assert_eq!(made.state, SandboxState::Running);
    assert_eq!((made.provider.as_str(), made.image.as_str()), ("mock", "host"));
    assert_eq!((made.size.memory_mb, made.size.vcpus, made.size.disk_size_mb), (1024, 1, 2048));
    assert_eq!(made.expires_at.since(made.created_at), Duration::from_secs(1800));
    assert_eq!((made.generation, made.worker_id.as_str()), (1, "local"));
    assert_eq!(made.vm_id.as_deref(), Some("rt-1"));
    assert_eq!(made.preview_domain.as_deref(), Some("localhost"));
    assert!(made.answered && s.worker.holds(&made.id));
    assert_eq!(made, s.store.row(&made.id));
}

#[tokio::test(start_paused = true)]
async fn the_header_wins_over_the_body_and_the_tenant_is_stamped() {
    let s = System::start().await;
    let ctx = Context {
        tenant: Some(TenantId::parse("t1").unwrap()),
        owner: Some(OwnerId::parse("head").unwrap()),
    };
    let body = SpawnInput { owner: Some(OwnerId::parse("body").unwrap()), ..input() };
    let made = s.control.spawn(&ctx, body.clone()).await.unwrap();
    assert_eq!(made.owner_id.unwrap().as_str(), "head");
    assert_eq!(made.tenant_id, ctx.tenant);
    let made = s.control.spawn(&s.ctx, body).await.unwrap();
    assert_eq!(made.owner_id.unwrap().as_str(), "body");
}

#[tokio::test(start_paused = true)]
async fn bug_55_nonsense_is_refused() {
    let s = System::start().await;
    let refused = |i: SpawnInput| async { code(s.control.spawn(&s.ctx, i).await) };
    let secs = |n| Some(Duration::from_secs(n));
    let limit = ErrorCode::ResourceLimit;
    assert_eq!(refused(SpawnInput { ttl: secs(24 * 3600 + 1), ..input() }).await, limit);
    let bad = ErrorCode::BadRequest;
    assert_eq!(refused(SpawnInput { ttl: secs(0), ..input() }).await, bad);
    assert_eq!(refused(SpawnInput { memory_mb: Some(u32::MAX), ..input() }).await, bad);
    assert_eq!(refused(SpawnInput { vcpus: Some(u32::MAX), ..input() }).await, bad);
    assert_eq!(refused(SpawnInput { disk_size_mb: Some(u32::MAX), ..input() }).await, bad);
    assert_eq!(refused(SpawnInput { image: Some("x".repeat(513)), ..input() }).await, bad);
    let mut big = input();
    big.metadata.insert("k".into(), "v".repeat(64 * 1024));
    assert_eq!(refused(big).await, bad);
    let unknown = SpawnInput { provider: Some("nope".into()), ..input() };
    let fault = s.control.spawn(&s.ctx, unknown).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::NotFound);
    assert!(fault.message.contains("provider nope"), "{fault}");
    assert!(s.store.state().rows.is_empty());
    let cased = SpawnInput { provider: Some("MOCK".into()), memory_mb: Some(0), ..input() };
    let made = s.control.spawn(&s.ctx, cased).await.unwrap();
    assert_eq!((made.provider.as_str(), made.size.memory_mb), ("mock", 1024));
}

#[tokio::test(start_paused = true)]
async fn bug_51_a_full_server_says_so_by_name() {
    let mut c = config();
    c.defaults.max_sandboxes = 2;
    c.defaults.max_sandboxes_per_owner = 1;
    let s = System::with(c).await;
    let by = |o: &str| SpawnInput { owner: Some(OwnerId::parse(o).unwrap()), ..input() };
    s.control.spawn(&s.ctx, by("a")).await.unwrap();
    let fault = s.control.spawn(&s.ctx, by("a")).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::ResourceLimit);
    assert!(fault.message.contains("max_sandboxes_per_owner (1) is reached"), "{fault}");
    let b = s.control.spawn(&s.ctx, by("b")).await.unwrap();
    let fault = s.control.spawn(&s.ctx, by("c")).await.unwrap_err();
    assert!(fault.message.contains("max_sandboxes (2) is reached"), "{fault}");
    s.control.destroy(&s.ctx, b.id.as_str(), None).await.unwrap();
    s.control.spawn(&s.ctx, by("c")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sixty_four_at_once_never_exceed_a_limit() {
    let mut c = config();
    c.defaults.max_sandboxes = 10;
    let s = System::with(c).await;
    let all = join_all((0..64).map(|_| s.control.spawn(&s.ctx, input()))).await;
    assert_eq!(all.iter().filter(|r| r.is_ok()).count(), 10);
    for fault in all.into_iter().filter_map(Result::err) {
        assert_eq!(fault.code, ErrorCode::ResourceLimit);
    }
    assert_eq!(s.store.state().most_live, 10);
    assert_eq!(s.worker.state().most_live, 10);
}

#[tokio::test(start_paused = true)]
async fn bug_5_spawns_do_not_wait_for_one_another() {
    let s = System::start().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("spawn", Act::Wait(gate.clone()));
    let control = s.control.clone();
    let slow = tokio::spawn(async move { control.spawn(&Context::default(), input()).await });
    wait_until("the slow one is at the worker", || s.worker.calls("spawn") == 1).await;
    s.spawn().await;
    assert!(!slow.is_finished());
    gate.add_permits(1);
    slow.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn bug_31_a_taken_id_is_not_taken_twice() {
    let s = System::start().await;
    s.store.next("insert", StoreAct::Duplicate);
    s.store.next("insert", StoreAct::Duplicate);
    let made = s.spawn().await;
    assert!(made.id.as_str().len() == 23, "{}", made.id);
    s.store.state().always.insert("insert", StoreAct::Duplicate);
    let fault = s.control.spawn(&s.ctx, input()).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::InternalError);
}

#[tokio::test(start_paused = true)]
async fn what_the_worker_says_passes_through_and_nothing_stays() {
    for failure in [Act::Fail(ErrorCode::ImageNotFound), Act::FailAfter(ErrorCode::ImageNotFound)] {
        let s = System::start().await;
        s.worker.next("spawn", failure);
        let fault = s.control.spawn(&s.ctx, input()).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::ImageNotFound);
        assert_eq!(fault.message, "spawn was told to fail");
        s.is_clean().await;
        let row = s.store.state().rows.values().next().cloned().unwrap();
        assert_eq!(row.ended_reason, Some(EndedReason::SpawnFailed));
    }
}

/// Each step of a spawn fails in each way; the slate is clean afterwards.
#[tokio::test(start_paused = true)]
async fn a_failure_at_any_step_leaves_nothing() {
    let internal = ErrorCode::InternalError;
    let worker = [
        vec![("spawn", Act::Fail(internal))],
        vec![("spawn", Act::FailAfter(internal))],
        vec![("spawn", Act::Hang)],
        vec![("spawn", Act::HangAfter)],
        vec![("spawn", Act::FailAfter(internal)), ("destroy", Act::Fail(internal))],
        vec![("spawn", Act::FailAfter(internal)), ("destroy", Act::FailAfter(internal))],
        vec![("spawn", Act::FailAfter(internal)), ("destroy", Act::Hang)],
        vec![("spawn", Act::FailAfter(internal)), ("destroy", Act::HangAfter)],
    ];
    for acts in worker {
        let s = System::start().await;
        let told = format!("{acts:?}");
        for (op, act) in acts {
            s.worker.next(op, act);
        }
        assert!(s.control.spawn(&s.ctx, input()).await.is_err(), "{told}");
        s.is_clean().await;
    }
    for op in ["insert", "change"] {
        for act in [StoreAct::Busy, StoreAct::Full, StoreAct::Broken, StoreAct::BrokenAfter] {
            // The first write of this kind fails, or the first three.
            for times in [1, 3] {
                let s = System::start().await;
                (0..times).for_each(|_| s.store.next(op, act));
                let fault = s.control.spawn(&s.ctx, input()).await.unwrap_err();
                let wanted = match act {
                    StoreAct::Busy | StoreAct::Full => ErrorCode::Unavailable,
                    _ => internal,
                };
                assert_eq!(fault.code, wanted, "{op} {act:?}");
                s.is_clean().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_leaves_nothing() {
    let s = System::start().await;
    s.worker.next("spawn", Act::Panic);
    assert_eq!(code(s.control.spawn(&s.ctx, input()).await), ErrorCode::InternalError);
    s.is_clean().await;
    let made = s.spawn().await;
    s.worker.next("destroy", Act::Panic);
    s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn one_destroyed_while_it_is_made_does_not_come_to_life() {
    let s = System::start().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("spawn", Act::Wait(gate.clone()));
    let control = s.control.clone();
    let spawning = tokio::spawn(async move { control.spawn(&Context::default(), input()).await });
    wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
    let id = s.store.live()[0].id.clone();
    s.control.destroy(&s.ctx, id.as_str(), None).await.unwrap();
    assert_eq!(s.store.row(&id).state, SandboxState::Destroyed);
    gate.add_permits(1);
    assert_eq!(code(spawning.await.unwrap()), ErrorCode::NotFound);
    // At once, not when the inventory is next compared.
    assert!(!s.worker.holds(&id));
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_once_control_stops() {
    let s = System::start().await;
    s.spawn().await;
    s.control.shutdown().await;
    assert_eq!(code(s.control.spawn(&s.ctx, input()).await), ErrorCode::Unavailable);
    assert_eq!(s.worker.state().sandboxes.len(), 1, "sandboxes stay");
}
