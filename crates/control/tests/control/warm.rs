//! Spawns that a warm pool serves: one write, and whatever fails, nothing is lost or given twice.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as Task, Poll, Waker};

use control::{Context, RepeatKey, SpawnInput};
use types::{ErrorCode, SandboxId, SandboxState};

use crate::support::{Act, StoreAct, System, code, config, input, wait_until};

fn warm(s: &System, count: u8) -> Vec<SandboxId> {
    let ids: Vec<_> = (1..=count).map(|n| SandboxId::from_random([n; 20])).collect();
    s.worker.state().warm.extend(ids.iter().cloned());
    ids
}

#[tokio::test(start_paused = true)]
async fn it_is_answered_with_one_write_and_no_spawn() {
    let s = System::start().await;
    let ids = warm(&s, 2);
    let before = s.store.writes();
    let made = s.spawn().await;
    assert_eq!(s.store.writes() - before, 1);
    assert_eq!((&made.id, made.state), (&ids[0], SandboxState::Running));
    assert!(made.answered && s.worker.holds(&made.id));
    assert_eq!(made, s.store.row(&made.id));
    let order = s.worker.state().warm_orders[0].clone();
    assert_eq!((order.image.as_str(), order.size, order.generation), ("host", made.size, 1));
    assert_eq!(order.expires_at, made.expires_at);
    assert_eq!(s.worker.calls("spawn"), 0);
    s.spawn().await;
    // None is left: it is made, as ever.
    let cold = s.spawn().await;
    assert!(!ids.contains(&cold.id));
    assert_eq!((s.worker.calls("spawn"), s.worker.calls("return_warm")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_server_gives_back_what_it_took() {
    let mut c = config();
    c.defaults.max_sandboxes = 1;
    let s = System::with(c).await;
    let ids = warm(&s, 2);
    s.spawn().await;
    for _ in 0..5 {
        assert_eq!(code(s.control.spawn(&s.ctx, input()).await), ErrorCode::ResourceLimit);
    }
    // Each time, unless the one before is not back yet.
    assert!(s.worker.calls("return_warm") > 0);
    wait_until("it is given back", || s.worker.state().warm == [ids[1].clone()]).await;
    assert_eq!((s.worker.calls("destroy"), s.worker.calls("spawn")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_takes_none() {
    let s = System::start().await;
    let ids = warm(&s, 2);
    let key = RepeatKey { key: "k".into(), request: "a".into() };
    let keyed = SpawnInput { key: Some(key), ..input() };
    let first = s.control.obtain(&s.ctx, keyed.clone()).await.unwrap();
    let again = s.control.obtain(&s.ctx, keyed).await.unwrap();
    assert_eq!((&first, &first.sandbox.id), (&again, &ids[0]));
    assert_eq!(s.worker.state().warm, [ids[1].clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_or_hangs_is_done_without() {
    for act in [Act::Fail(ErrorCode::InternalError), Act::Hang] {
        let s = System::start().await;
        let ids = warm(&s, 1);
        s.worker.next("take_warm", act);
        let made = s.spawn().await;
        assert!(!ids.contains(&made.id));
        assert_eq!(s.worker.calls("spawn"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_taken_goes_to_nobody() {
    let s = System::start().await;
    let ids = warm(&s, 1);
    s.store.next("insert", StoreAct::Duplicate);
    let made = s.spawn().await;
    assert!(!ids.contains(&made.id));
    assert_eq!((made.state, s.worker.calls("spawn")), (SandboxState::Running, 1));
    assert!(s.worker.state().warm.is_empty() && !s.worker.holds(&ids[0]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_leaves_nothing() {
    for act in [StoreAct::Busy, StoreAct::Full, StoreAct::Broken, StoreAct::BrokenAfter] {
        let s = System::start().await;
        warm(&s, 1);
        s.store.next("insert", act);
        assert!(s.control.spawn(&s.ctx, input()).await.is_err(), "{act:?}");
        s.is_clean().await;
        assert!(s.worker.state().warm.is_empty(), "{act:?}: it may have been given away");
    }
}

#[tokio::test(start_paused = true)]
async fn bug_54_a_client_that_leaves_at_any_await_loses_none() {
    let mut answered = 0;
    for looks in 0..16 {
        for turns in 0..3 {
            let s = System::start().await;
            let ids = warm(&s, 1);
            let ctx = Context::default();
            let mut made = false;
            {
                let mut spawn = pin!(s.control.spawn(&ctx, input()));
                for _ in 0..looks {
                    let polled = spawn.as_mut().poll(&mut Task::from_waker(Waker::noop()));
                    if let Poll::Ready(sandbox) = polled {
                        sandbox.unwrap();
                        made = true;
                        break;
                    }
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
            }
            if made {
                answered += 1;
                assert_eq!(s.store.live().len(), 1);
                continue;
            }
            // It waits again, or it was handed out and has ended; never both, never neither.
            wait_until("what was taken to be back or gone", || {
                let state = s.worker.state();
                let ended = state.reasons.iter().any(|(id, _)| *id == ids[0]);
                state.warm.contains(&ids[0]) != ended && !state.sandboxes.contains_key(&ids[0])
            })
            .await;
            s.is_clean().await;
        }
    }
    assert!(answered > 0, "no spawn was ever let finish: the test sees too little");
}
