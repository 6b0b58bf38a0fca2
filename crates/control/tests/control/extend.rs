//! Extending: bounded, and never a record that promises more than the worker holds.

use std::time::Duration;

use types::{ErrorCode, SandboxState};

use crate::support::{Act, StoreAct, System, code};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn it_counts_from_now_and_may_shorten() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.clock.advance(MINUTE);
    for ttl in [20 * MINUTE, 2 * MINUTE] {
        let longer = s.control.extend(&s.ctx, id.as_str(), ttl).await.unwrap();
        assert_eq!(longer.expires_at, s.later(ttl));
        assert_eq!(s.worker.state().sandboxes[&id].expires_at, s.later(ttl));
        let lease = s.worker.state().leases.last().cloned().unwrap();
        assert!(lease.expires_at > longer.expires_at && lease.generation == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn bug_55_max_ttl_holds_for_extend_too() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let extend = |ttl| s.control.extend(&s.ctx, id.as_str(), ttl);
    assert_eq!(code(extend(48 * 60 * MINUTE).await), ErrorCode::ResourceLimit);
    assert_eq!(code(extend(Duration::ZERO).await), ErrorCode::BadRequest);
    assert_eq!(s.worker.calls("extend"), 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_the_record_promises_no_more_than_the_worker_holds() {
    let acts: [(Option<Act>, Option<StoreAct>); 5] = [
        (Some(Act::Fail(ErrorCode::InternalError)), None),
        (Some(Act::FailAfter(ErrorCode::InternalError)), None),
        (Some(Act::HangAfter), None),
        (None, Some(StoreAct::Busy)),
        (None, Some(StoreAct::BrokenAfter)),
    ];
    for (worker, store) in acts {
        // The planted one has ten minutes.
        for ttl in [20 * MINUTE, 2 * MINUTE] {
            let s = System::start().await;
            let id = s.plant("sb-x", SandboxState::Running);
            let before = s.store.row(&id).expires_at;
            if let Some(act) = worker.clone() {
                s.worker.next("extend", act);
            }
            if let Some(act) = store {
                s.store.next("change", act);
            }
            let answer = s.control.extend(&s.ctx, id.as_str(), ttl).await;
            let row = s.store.row(&id).expires_at;
            let held = s.worker.state().sandboxes[&id].expires_at;
            // A worker that keeps the later end of a shortened one is held to the record.
            assert!(row <= held, "{worker:?} {store:?} {ttl:?}");
            let asked = s.later(ttl);
            assert!(row == before || row == asked);
            assert!(row.min(held) >= before.min(asked), "life was cut unasked");
            if let Ok(told) = answer {
                assert_eq!(told.expires_at, row);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_meanwhile_is_not_revived() {
    let s = System::start().await;
    let made = s.spawn().await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    s.worker.next("extend", Act::Wait(gate.clone()));
    let control = s.control.clone();
    let id = made.id.to_string();
    let call = tokio::spawn(async move {
        control.extend(&control::Context::default(), &id, 60 * MINUTE).await
    });
    crate::support::wait_until("at the worker", || s.worker.calls("extend") == 1).await;
    s.store.state().rows.get_mut(&made.id).unwrap().state = SandboxState::Destroyed;
    gate.add_permits(1);
    assert_eq!(code(call.await.unwrap()), ErrorCode::NotFound);
}
