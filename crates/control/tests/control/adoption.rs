//! The start and the comparison after it: what the store remembers against what the worker holds.

use std::sync::Arc;
use std::time::Duration;

use protocol::worker::SandboxEnded;
use types::{EndedReason, ErrorCode, SandboxId, SandboxState};

use crate::support::{
    Act, FakeWorker, MemoryStore, StoreAct, System, config, fact, row, wait_until,
};

fn before_start() -> System {
    System::unstarted(config(), Arc::new(MemoryStore::default()), Arc::new(FakeWorker::default()))
}

fn id(name: &str) -> SandboxId {
    SandboxId::parse(name).unwrap()
}

fn plant(s: &System, name: &str, state: SandboxState, answered: bool) {
    let mut row = row(name);
    row.state = state;
    row.answered = answered;
    s.worker.hold(fact(&row));
    s.store.put(row);
}

#[tokio::test(start_paused = true)]
async fn what_should_live_lives_and_what_should_not_is_gone() {
    let s = before_start();
    use SandboxState::*;
    plant(&s, "sb-lives", Running, true);
    plant(&s, "sb-creating", Creating, false);
    plant(&s, "sb-unanswered", Running, false);
    plant(&s, "sb-destroying", Destroying, true);
    plant(&s, "sb-destroyed", Destroyed, true);
    plant(&s, "sb-recovered", Unhealthy, true);
    s.store.put(row("sb-lost"));
    let mut dead = row("sb-dead-lost");
    (dead.state, dead.ended_reason) = (Error, Some(EndedReason::Oom));
    s.store.put(dead);
    s.worker.hold(fact(&row("sb-orphan")));
    s.store.put(row("sb-rebooted"));
    let mut rebooted = fact(&row("sb-rebooted"));
    (rebooted.state, rebooted.reason) = (Destroyed, Some(EndedReason::HostRebooted));
    s.worker.hold(rebooted);
    s.store.put(row("sb-died"));
    let mut died = fact(&row("sb-died"));
    (died.state, died.reason) = (Error, Some(EndedReason::Oom));
    s.worker.hold(died);
    s.store.put(row("sb-shorter"));
    let mut shorter = fact(&row("sb-shorter"));
    shorter.expires_at = s.later(Duration::from_secs(5));
    s.worker.hold(shorter);

    assert!(!s.control.readiness().await.ready);
    s.control.start().await.unwrap();
    assert!(s.control.readiness().await.ready);

    let at = |name| {
        let row = s.store.row(&id(name));
        (row.state, row.ended_reason)
    };
    assert_eq!(at("sb-lives"), (Running, None));
    assert_eq!(at("sb-creating"), (Destroyed, Some(EndedReason::Unanswered)));
    assert_eq!(at("sb-unanswered"), (Destroyed, Some(EndedReason::Unanswered)));
    assert_eq!(at("sb-destroying").0, Destroyed);
    assert_eq!(at("sb-recovered"), (Running, None));
    assert_eq!(at("sb-lost"), (Destroyed, Some(EndedReason::Lost)));
    assert_eq!(at("sb-dead-lost"), (Destroyed, Some(EndedReason::Oom)));
    assert_eq!(at("sb-rebooted"), (Destroyed, Some(EndedReason::HostRebooted)));
    assert_eq!(at("sb-died"), (Error, Some(EndedReason::Oom)));
    for gone in ["sb-creating", "sb-unanswered", "sb-destroying", "sb-destroyed", "sb-orphan"] {
        assert!(!s.worker.holds(&id(gone)), "{gone}");
    }
    for kept in ["sb-lives", "sb-recovered", "sb-died", "sb-shorter"] {
        assert!(s.worker.holds(&id(kept)), "{kept}");
    }
    let held = s.worker.state().sandboxes[&id("sb-shorter")].expires_at;
    assert_eq!(held, s.store.row(&id("sb-shorter")).expires_at);
}

#[tokio::test(start_paused = true)]
async fn bug_18_no_single_row_keeps_it_from_starting() {
    for act in [
        Act::Fail(ErrorCode::InternalError),
        Act::FailAfter(ErrorCode::InternalError),
        Act::Hang,
        Act::Panic,
    ] {
        let s = before_start();
        plant(&s, "sb-creating", SandboxState::Creating, false);
        plant(&s, "sb-destroyed", SandboxState::Destroyed, true);
        plant(&s, "sb-lives", SandboxState::Running, true);
        s.store.put(row("sb-lost"));
        let odd = match act {
            Act::Panic => vec!["destroy"],
            _ => vec!["destroy", "status"],
        };
        // A panic is tried on the ending alone: that one runs as a task of its own.
        if matches!(act, Act::Panic) {
            s.store.state().rows.remove(&id("sb-destroyed"));
            s.worker.state().sandboxes.remove(&id("sb-destroyed"));
        }
        for op in odd {
            s.worker.next(op, act.clone());
        }
        s.store.next("change", StoreAct::Broken);
        s.control.start().await.unwrap();
        assert!(s.control.readiness().await.ready);
        wait_until("the rest is put right", || {
            s.clock.advance(Duration::from_millis(50));
            s.store.live().len() == 1 && s.worker.state().sandboxes.len() == 1
        })
        .await;
        assert!(s.worker.holds(&id("sb-lives")));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_a_worker_that_cannot_be_asked_yet() {
    let s = before_start();
    s.worker.always("inventory", Act::Fail(ErrorCode::Unavailable));
    plant(&s, "sb-lives", SandboxState::Running, true);
    s.control.start().await.unwrap();
    assert!(!s.control.readiness().await.ready);
    assert_eq!(s.store.row(&id("sb-lives")).state, SandboxState::Running);
    s.worker.heal();
    let asked = s.worker.calls("inventory");
    wait_until("asked again", || s.worker.calls("inventory") > asked).await;
    tokio::task::yield_now().await;
    wait_until("put right", || s.store.state().calls.contains(&"of_worker")).await;
    let mut ready = false;
    for _ in 0..100 {
        ready = s.control.readiness().await.ready;
        if ready {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(ready);
}

#[tokio::test(start_paused = true)]
async fn bug_20_a_sandbox_that_dies_unnoticed_is_noticed() {
    let s = System::start().await;
    let (lost, dead) = (s.spawn().await.id, s.spawn().await.id);
    s.worker.state().sandboxes.remove(&lost);
    s.worker.state().sandboxes.get_mut(&dead).unwrap().state = SandboxState::Error;
    wait_until("both are noticed", || {
        s.store.row(&lost).state == SandboxState::Destroyed
            && s.store.row(&dead).state == SandboxState::Error
    })
    .await;
    assert_eq!(s.store.row(&lost).ended_reason, Some(EndedReason::Lost));
    assert_eq!(s.store.row(&dead).ended_reason, Some(EndedReason::Crashed));
}

#[tokio::test(start_paused = true)]
async fn reports_move_records_of_their_generation_only() {
    let s = System::start().await;
    let (a, b) = (s.spawn().await.id, s.spawn().await.id);
    let ended = |id: &SandboxId, generation, reason, removed| SandboxEnded {
        sandbox_id: id.clone(),
        generation,
        reason,
        removed,
    };
    let stale = vec![ended(&a, 2, EndedReason::Oom, false), ended(&b, 0, EndedReason::Lost, true)];
    s.uplink.report(stale).await.unwrap();
    assert_eq!(s.store.row(&a).state, SandboxState::Running);
    assert_eq!(s.store.row(&b).state, SandboxState::Running);
    let now =
        || vec![ended(&a, 1, EndedReason::Oom, false), ended(&b, 1, EndedReason::Expired, true)];
    // One that fails does not keep the other back, and the worker is told to repeat.
    s.store.next("change", StoreAct::Busy);
    assert_eq!(s.uplink.report(now()).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(s.store.row(&b).state, SandboxState::Destroyed);
    s.uplink.report(now()).await.unwrap();
    s.uplink.report(now()).await.unwrap();
    assert_eq!(s.store.row(&a).state, SandboxState::Error);
    let shown = s.control.sandbox(&s.ctx, a.as_str()).await.unwrap();
    assert_eq!((shown.state, shown.ended_reason), (SandboxState::Error, Some(EndedReason::Oom)));
    let fault = s.control.sandbox(&s.ctx, b.as_str()).await.unwrap_err();
    assert!(fault.message.contains("has expired"), "{fault}");
    // The dead one can be destroyed, and stays remembered as what it died of.
    s.control.destroy(&s.ctx, a.as_str(), None).await.unwrap();
    assert_eq!(s.store.row(&a).ended_reason, Some(EndedReason::Oom));
}

#[tokio::test(start_paused = true)]
async fn a_link_outlives_no_control_plane() {
    let s = before_start();
    let System { control, uplink, .. } = s;
    drop(control);
    assert_eq!(uplink.report(Vec::new()).await.unwrap_err().code, ErrorCode::Unavailable);
}
