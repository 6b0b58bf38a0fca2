//! Repeats of a spawn: by key and by name, while it is under way, after it, and across a crash.

use std::sync::Arc;

use control::{Control, Obtained, RepeatKey, SpawnInput};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use types::{EndedReason, ErrorCode, Fault, SandboxName, SandboxState};

use crate::support::{Act, System, code, config, input, wait_until};

fn keyed(key: &str, request: &str) -> SpawnInput {
    SpawnInput { key: Some(RepeatKey { key: key.into(), request: request.into() }), ..input() }
}

fn named(name: &str) -> SpawnInput {
    SpawnInput { name: Some(SandboxName::parse(name).unwrap()), ..input() }
}

fn ask(control: &Control, input: SpawnInput) -> JoinHandle<Result<Obtained, Fault>> {
    let control = control.clone();
    tokio::spawn(async move { control.obtain(&Default::default(), input).await })
}

#[tokio::test(start_paused = true)]
async fn bug_50_a_key_gets_the_same_answer_whatever_became_of_it() {
    let mut c = config();
    c.defaults.max_sandboxes = 1;
    let s = System::with(c).await;
    let first = s.control.obtain(&s.ctx, keyed("k", "a")).await.unwrap();
    assert!(!first.found);
    // Also where no other could be made.
    let again = s.control.obtain(&s.ctx, keyed("k", "a")).await.unwrap();
    assert_eq!(again, first);
    let other = code(s.control.obtain(&s.ctx, keyed("k", "b")).await);
    assert_eq!(other, ErrorCode::Unprocessable);
    s.control.destroy(&s.ctx, first.sandbox.id.as_str(), None).await.unwrap();
    let gone = s.control.obtain(&s.ctx, keyed("k", "a")).await.unwrap();
    assert_eq!(gone.sandbox.id, first.sandbox.id);
    assert_eq!(gone.sandbox.state, SandboxState::Destroyed);
    assert_eq!(s.worker.calls("spawn"), 1);
}

#[tokio::test(start_paused = true)]
async fn repeats_wait_for_the_first_and_one_is_made() {
    for input in [keyed("k", "a"), named("n")] {
        let s = System::start().await;
        let gate = Arc::new(Semaphore::new(0));
        s.worker.always("spawn", Act::Wait(gate.clone()));
        let asked: Vec<_> = (0..16).map(|_| ask(&s.control, input.clone())).collect();
        wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
        assert!(asked.iter().all(|a| !a.is_finished()));
        gate.add_permits(1);
        let all: Vec<_> = join_all(asked).await.into_iter().map(|a| a.unwrap().unwrap()).collect();
        assert!(all.iter().all(|o| o.sandbox == all[0].sandbox), "{all:?}");
        let found = all.iter().filter(|o| o.found).count();
        assert_eq!(found, if input.name.is_some() { 15 } else { 0 });
        assert_eq!((s.worker.calls("spawn"), s.store.live().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_all_who_wait_and_then_forgotten() {
    let s = System::start().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("spawn", Act::Wait(gate.clone()));
    s.worker.always("destroy", Act::Fail(ErrorCode::InternalError));
    let asked: Vec<_> = (0..4).map(|_| ask(&s.control, keyed("k", "a"))).collect();
    wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
    // It is destroyed under their eyes.
    let id = s.store.live()[0].id.clone();
    s.worker.heal();
    s.control.destroy(&s.ctx, id.as_str(), None).await.unwrap();
    gate.add_permits(1);
    for asked in asked {
        assert_eq!(code(asked.await.unwrap()), ErrorCode::NotFound);
    }
    for (input, failed) in [(keyed("f", "a"), 1), (named("f"), 2)] {
        s.worker.next("spawn", Act::Fail(ErrorCode::ImageNotFound));
        assert_eq!(code(s.control.obtain(&s.ctx, input.clone()).await), ErrorCode::ImageNotFound);
        let made = s.control.obtain(&s.ctx, input).await.unwrap();
        assert_eq!(made.sandbox.state, SandboxState::Running);
        assert_eq!(s.store.live().len(), failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_leaves_what_its_key_can_fetch() {
    let s = System::start().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("spawn", Act::Wait(gate.clone()));
    let gone = ask(&s.control, keyed("k", "a"));
    wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
    gone.abort();
    assert!(gone.await.is_err());
    gate.add_permits(1);
    wait_until("it is made", || s.store.live().iter().any(|r| r.answered)).await;
    let fetched = s.control.obtain(&s.ctx, keyed("k", "a")).await.unwrap();
    assert_eq!(fetched.sandbox.state, SandboxState::Running);
    assert_eq!(s.worker.calls("spawn"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_another_waits_for_by_name_is_not_given_up() {
    for joined in [true, false] {
        let s = System::start().await;
        let gate = Arc::new(Semaphore::new(0));
        s.worker.next("spawn", Act::Wait(gate.clone()));
        let first = ask(&s.control, named("n"));
        wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
        let second = joined.then(|| ask(&s.control, named("n")));
        if joined {
            // It has found the record and waits.
            wait_until("it is found", || {
                s.store.state().calls.iter().filter(|c| **c == "earlier").count() == 2
            })
            .await;
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err());
        gate.add_permits(1);
        match second {
            Some(second) => {
                let found = second.await.unwrap().unwrap();
                assert!(found.found);
                assert_eq!(s.store.row(&found.sandbox.id).state, SandboxState::Running);
            }
            None => s.is_clean().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_key_fetches_what_the_worker_holds() {
    for holds in [true, false] {
        let s = System::start().await;
        let gate = Arc::new(Semaphore::new(0));
        // As a crash leaves it: made, the answer not stored; or not even made.
        let step = if holds { Act::HangAfter } else { Act::Wait(gate.clone()) };
        s.worker.next("spawn", step);
        let asked = ask(&s.control, keyed("k", "a"));
        wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
        tokio::task::yield_now().await;
        let id = s.store.live()[0].id.clone();
        assert_eq!(s.worker.holds(&id), holds);
        // What the process that died was doing does not go on.
        s.control.shutdown().await;
        let s = System::unstarted(config(), s.store, s.worker);
        s.heartbeat("local").await;
        s.control.start().await.unwrap();
        let fetched = s.control.obtain(&s.ctx, keyed("k", "a")).await.unwrap();
        assert_eq!(fetched.sandbox.state, SandboxState::Running);
        assert_eq!(fetched.sandbox.id == id, holds);
        assert_eq!(s.store.live().len(), 1);
        if !holds {
            let reason = s.store.row(&id).ended_reason;
            assert_eq!(reason, Some(EndedReason::Unanswered));
        }
        asked.abort();
    }
}
