//! Which sandbox can be reached: every state against every operation.

use std::time::Duration;

use control::{Context, ExecInput, ExecKind};
use protocol::worker::FileOp;
use types::{EndedReason, ErrorCode, Fault, Sandbox, SandboxId, SandboxState, WorkerId};

use crate::support::{System, row};

async fn every_operation(s: &System, id: &SandboxId) -> Vec<(&'static str, Result<(), Fault>)> {
    let (c, ctx, id) = (&s.control, &s.ctx, id.as_str());
    let list = FileOp::List { path: "/".to_owned() };
    let more = Duration::from_secs(900);
    vec![
        (
            "exec_stream",
            c.exec_stream(ctx, id, ExecInput::default(), ExecKind::Streamed).await.map(|_| ()),
        ),
        ("files", c.files(ctx, id, list).await.map(|_| ())),
        ("logs", c.logs(ctx, id, 10).await.map(|_| ())),
        ("stats", c.stats(ctx, id).await.map(|_| ())),
        ("extend", c.extend(ctx, id, more).await.map(|_| ())),
    ]
}

async fn planted(change: impl FnOnce(&System, &mut Sandbox)) -> (System, SandboxId) {
    let s = System::start().await;
    s.control.shutdown().await;
    let mut row = row("sb-planted");
    change(&s, &mut row);
    s.worker.hold(crate::support::fact(&row));
    let id = row.id.clone();
    s.store.put(row);
    (s, id)
}

#[tokio::test(start_paused = true)]
async fn every_state_against_every_operation() {
    use SandboxState::*;
    for state in SandboxState::ALL {
        let (s, id) = planted(|_, r| {
            r.state = state;
            if !matches!(state, Creating | Running | Unhealthy) {
                r.ended_reason = Some(EndedReason::Oom);
            }
        })
        .await;
        for (op, done) in every_operation(&s, &id).await {
            let wanted = match state {
                Running | Unhealthy => None,
                Creating => Some((ErrorCode::Unavailable, "still being created")),
                Error => Some((ErrorCode::SandboxDead, "ran out of memory")),
                Expired => Some((ErrorCode::NotFound, "has expired")),
                Destroying | Destroyed => Some((ErrorCode::NotFound, "ran out of memory")),
            };
            match (done, wanted) {
                (Ok(()), None) => {}
                (Err(fault), Some((code, words))) => {
                    assert_eq!(fault.code, code, "{op} while {state:?}");
                    assert!(fault.message.contains(words), "{op} while {state:?}: {fault}");
                }
                (done, _) => panic!("{op} while {state:?}: {done:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn past_its_ttl_it_is_gone_for_callers_before_it_is_reaped() {
    let (s, id) = planted(|s, r| r.expires_at = s.clock_past()).await;
    for (op, done) in every_operation(&s, &id).await {
        let fault = done.unwrap_err();
        assert_eq!(fault.code, ErrorCode::NotFound, "{op}");
        assert!(fault.message.contains("has expired"), "{op}: {fault}");
    }
    let fault = s.control.sandbox(&s.ctx, id.as_str()).await.unwrap_err();
    assert!(fault.message.contains("has expired"), "{fault}");
    let listed = s.control.sandboxes(&s.ctx).await.unwrap();
    assert_eq!(listed[0].state, SandboxState::Expired);
    assert_eq!(listed[0].ended_reason, Some(EndedReason::Expired));
}

#[tokio::test(start_paused = true)]
async fn what_never_was_is_not_found_by_any_operation() {
    let s = System::start().await;
    for name in ["sb-00000000", "not-there"] {
        let id = SandboxId::parse(name).unwrap();
        for (op, done) in every_operation(&s, &id).await {
            assert_eq!(done.unwrap_err().code, ErrorCode::NotFound, "{op}");
        }
    }
    for path in ["../../etc", "", "A B"] {
        let fault = s.control.sandbox(&Context::default(), path).await.unwrap_err();
        assert_eq!(fault.message, "sandbox not found");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_worker_is_away_is_unhealthy() {
    let (s, id) = planted(|_, r| r.worker_id = WorkerId::parse("far").unwrap()).await;
    let shown = s.control.sandbox(&s.ctx, id.as_str()).await.unwrap();
    assert_eq!(shown.state, SandboxState::Unhealthy);
    for (op, done) in every_operation(&s, &id).await {
        assert_eq!(done.unwrap_err().code, ErrorCode::Unavailable, "{op}");
    }
}

#[tokio::test(start_paused = true)]
async fn paths_are_judged_before_the_sandbox_is_looked_up() {
    let s = System::start().await;
    let blank = || " ".to_owned();
    let ops = [
        FileOp::Read { path: blank(), range: None },
        FileOp::Delete { path: String::new(), recursive: true },
        FileOp::Move { from: "/a".to_owned(), to: blank() },
        FileOp::Glob { pattern: "a\0b".to_owned() },
    ];
    for op in ops {
        let Err(fault) = s.control.files(&s.ctx, "sb-00000000", op).await else {
            panic!("it was accepted")
        };
        assert_eq!(fault.code, ErrorCode::BadRequest);
    }
}
