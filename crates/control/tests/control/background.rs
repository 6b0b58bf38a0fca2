//! What happens unasked.

use std::time::Duration;

use control::{ControlConfig, ImageRetention};
use protocol::worker::{ImageOp, Prune};
use types::{EndedReason, ErrorCode, SandboxState};

use crate::support::{Act, StoreAct, System, config, row, wait_until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_is_due_ends_within_two_seconds() {
    let s = System::start().await;
    let ids: Vec<_> =
        (0..300).map(|i| s.plant(&format!("sb-{i}"), SandboxState::Running)).collect();
    let stays = s.spawn().await;
    s.clock.advance(600 * SECOND);
    let began = tokio::time::Instant::now();
    wait_until("all are gone", || s.store.live().len() == 1).await;
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    assert!(ids.iter().all(|id| s.store.row(id).ended_reason == Some(EndedReason::Expired)));
    assert!(s.worker.holds(&stays.id));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_forward_ends_nothing() {
    let s = System::start().await;
    let made = s.spawn().await;
    s.clock.set_wall(s.later(48 * 3600 * SECOND));
    let runs = |name| s.control.tasks().iter().find(|t| t.name == name).map_or(0, |t| t.runs);
    let seen = runs("reap");
    wait_until("it has looked", || runs("reap") > seen + 2).await;
    assert_eq!(s.store.row(&made.id).state, SandboxState::Running);
    s.control.sandbox(&s.ctx, made.id.as_str()).await.unwrap();
    // Its time is counted all the same.
    s.clock.advance(1800 * SECOND);
    s.is_clean().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_does_not_hold_up_the_others() {
    let s = System::start().await;
    for i in 0..100 {
        s.plant(&format!("sb-{i}"), SandboxState::Running);
    }
    for _ in 0..3 {
        s.worker.next("destroy", Act::HangAfter);
    }
    s.clock.advance(600 * SECOND);
    wait_until("the others are gone", || s.store.live().len() <= 3).await;
    assert_eq!(s.store.live().len(), 3);
    wait_until("those, too", || {
        s.clock.advance(SECOND);
        s.store.live().is_empty()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_down_is_not_hammered() {
    let s = System::start().await;
    let made = s.spawn().await;
    s.worker.always("destroy", Act::Fail(ErrorCode::Unavailable));
    s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
    let first = s.worker.calls("destroy");
    let runs = || s.control.tasks().iter().find(|t| t.name == "drive").map_or(0, |t| t.runs);
    let seen = runs();
    // The injected clock stands: its rest is not over, however often `drive` looks.
    wait_until("drive has looked", || runs() > seen + 20).await;
    assert_eq!(s.worker.calls("destroy"), first);
    s.clock.advance(120 * SECOND);
    wait_until("tried again", || s.worker.calls("destroy") > first).await;
}

#[tokio::test(start_paused = true)]
async fn old_records_are_forgotten_and_only_those() {
    let s = System::start().await;
    let mut old = row("sb-old");
    (old.state, old.expires_at) = (SandboxState::Destroyed, s.clock_past());
    s.store.put(old.clone());
    let made = s.spawn().await;
    s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
    s.clock.advance(3600 * SECOND);
    wait_until("the old one is forgotten", || !s.store.state().rows.contains_key(&old.id)).await;
    assert!(s.store.state().rows.contains_key(&made.id));
}

#[tokio::test(start_paused = true)]
async fn old_images_go_where_that_is_wanted() {
    let keep = ImageRetention { unused_for: 3600 * SECOND, bytes: 7 };
    let s = System::with(ControlConfig { images: keep, ..config() }).await;
    wait_until("it was asked for", || s.worker.calls("images") > 0).await;
    let wanted = Prune { unused_for: Some(3600 * SECOND), keep_bytes: Some(7), ..Prune::default() };
    assert_eq!(s.worker.state().images[0], ImageOp::Prune(wanted));
    // By default nothing is removed.
    let s = System::start().await;
    let tidied = || s.control.tasks().iter().any(|t| t.name == "tidy" && t.runs > 0);
    wait_until("it has run", tidied).await;
    assert_eq!(s.worker.calls("images"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_says_so_and_goes_on() {
    let s = System::start().await;
    s.store.next("due", StoreAct::Busy);
    let reap = || s.control.tasks().into_iter().find(|t| t.name == "reap");
    wait_until("it failed once and went on", || {
        reap().is_some_and(|t| t.failures == 1 && t.error.is_none() && t.runs > 1)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_nothing_runs() {
    let s = System::start().await;
    wait_until("tasks run", || s.control.tasks().len() == 6).await;
    s.control.shutdown().await;
    let calls = s.store.state().calls.len();
    tokio::time::advance(600 * SECOND).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(s.store.state().calls.len(), calls);
}
