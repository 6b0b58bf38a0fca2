//! Clients that go away (BUG-54): at any await of a spawn, nothing is left that nobody knows.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use control::Context;
use tokio::sync::Semaphore;
use types::{EndedReason, SandboxState};

use crate::support::{Act, System, input, wait_until};

/// Lets every other task run `turns` times between two looks at the spawn, then drops it after
/// `looks` looks.
async fn drop_after(s: &System, looks: u32, turns: u32) -> bool {
    let ctx = Context::default();
    let mut spawn = pin!(s.control.spawn(&ctx, input()));
    for _ in 0..looks {
        let polled = spawn.as_mut().poll(&mut Task::from_waker(Waker::noop()));
        if let Poll::Ready(made) = polled {
            made.unwrap();
            return true;
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
    false
}

#[tokio::test(start_paused = true)]
async fn bug_54_a_client_that_leaves_at_any_await_leaves_nothing() {
    let mut answered = 0;
    for looks in 0..24 {
        for turns in 0..3 {
            let s = System::start().await;
            if drop_after(&s, looks, turns).await {
                answered += 1;
                assert_eq!(s.store.live().len(), 1);
                continue;
            }
            // What was begun goes on to its end, and is undone.
            s.is_clean().await;
            for row in s.store.state().rows.values() {
                assert_eq!(row.ended_reason, Some(EndedReason::Unanswered), "{row:?}");
            }
        }
    }
    assert!(answered > 0, "no spawn was ever let finish: the test sees too little");
}

#[tokio::test(start_paused = true)]
async fn one_whose_answer_lies_unread_is_destroyed() {
    let s = System::start().await;
    let ctx = Context::default();
    let mut spawn = Box::pin(s.control.spawn(&ctx, input()));
    assert!(spawn.as_mut().poll(&mut Task::from_waker(Waker::noop())).is_pending());
    wait_until("it is answered", || s.store.live().iter().any(|r| r.answered)).await;
    drop(spawn);
    s.is_clean().await;
    let row = s.store.state().rows.values().next().cloned().unwrap();
    assert_eq!(row.ended_reason, Some(EndedReason::Unanswered));
}

#[tokio::test(start_paused = true)]
async fn a_pull_outlives_its_client_but_the_sandbox_does_not() {
    let s = System::start().await;
    let gate = Arc::new(Semaphore::new(0));
    s.worker.next("spawn", Act::Wait(gate.clone()));
    let control = s.control.clone();
    let spawning = tokio::spawn(async move { control.spawn(&Context::default(), input()).await });
    wait_until("it is at the worker", || s.worker.calls("spawn") == 1).await;
    spawning.abort();
    assert!(spawning.await.is_err());
    assert_eq!(s.store.live()[0].state, SandboxState::Creating);
    gate.add_permits(1);
    s.is_clean().await;
}
