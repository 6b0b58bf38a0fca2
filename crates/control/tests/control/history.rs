//! What is remembered of commands that belong to their callers, and what that costs them: nothing.

use std::sync::Arc;
use std::time::Duration;

use control::{Context, ExecInput, ExecPage};
use futures_util::StreamExt;
use protocol::worker::{Bytes, ExecEvent, ExecExit, OutputStream};
use store::{CANCELLED, ExecKind, ExecRecord, LOST};
use types::{ErrorCode, Fault, OwnerId, SandboxId, SandboxState, TenantId};

use crate::support::{Act, Script, StoreAct, System, code, config, wait_until};

fn shell(command: &str) -> ExecInput {
    ExecInput { command: command.to_owned(), ..ExecInput::default() }
}

fn out(text: &'static str) -> Result<ExecEvent, Fault> {
    let data = Bytes::from_static(text.as_bytes());
    Ok(ExecEvent::Output { stream: OutputStream::Stdout, data })
}

fn exit(exit_code: i32) -> Result<ExecEvent, Fault> {
    Ok(ExecEvent::Exit(ExecExit { exit_code, ..ExecExit::default() }))
}

async fn listed(s: &System, id: &SandboxId) -> Vec<ExecRecord> {
    let page = ExecPage { limit: 10_000, ..ExecPage::default() };
    s.control.execs(&s.ctx, id.as_str(), page).await.unwrap()
}

/// How the one command of a sandbox ended: its code, or why nobody knows.
async fn only_end(s: &System, id: &SandboxId) -> (Option<i32>, Option<String>) {
    let mut all = listed(s, id).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let end = all.remove(0).end.unwrap();
    (end.exit_code, end.lost)
}

#[tokio::test(start_paused = true)]
async fn bug_50_every_command_leaves_a_record() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let ctx = Context { owner: Some(OwnerId::parse("ann").unwrap()), ..Context::default() };
    let input = ExecInput {
        args: vec!["a b".to_owned(), "x".repeat(600)],
        env: [("TOKEN".to_owned(), "hush".to_owned())].into(),
        stdin: Some(Bytes::from_static(b"hush")),
        user: Some("web".to_owned()),
        workdir: Some(" /srv ".to_owned()),
        ..shell("echo")
    };
    s.worker.script(Script::Events(vec![out("o"), exit(3)]));
    s.control.exec(&ctx, id.as_str(), input.clone()).await.unwrap();
    s.worker.script(Script::Events(vec![exit(4)]));
    s.control
        .exec_stream(&ctx, id.as_str(), input.clone(), ExecKind::Streamed)
        .await
        .unwrap()
        .count()
        .await;
    s.worker.script(Script::Events(vec![exit(5)]));
    s.control
        .exec_stream(&ctx, id.as_str(), input.clone(), ExecKind::Socket)
        .await
        .unwrap()
        .count()
        .await;
    s.control.exec_detached(&ctx, id.as_str(), input).await.unwrap();
    let all = listed(&s, &id).await;
    for (kind, exit_code) in [
        (ExecKind::Captured, Some(3)),
        (ExecKind::Streamed, Some(4)),
        (ExecKind::Socket, Some(5)),
        (ExecKind::Detached, None),
    ] {
        let record = all.iter().find(|r| r.kind == kind).unwrap();
        assert_eq!(record.end.as_ref().and_then(|end| end.exit_code), exit_code);
        assert!(record.command.starts_with("echo a b xxx") && record.command.ends_with("x…"));
        assert_eq!(record.command.chars().count(), 513);
        assert_eq!(record.owner_id, ctx.owner);
        assert_eq!(record.run_as.as_deref(), Some("web"));
        assert_eq!(record.workdir.as_deref(), Some("/srv"));
        assert!(!format!("{record:?}").contains("hush"), "{record:?}");
    }
    let running = ExecPage { running: true, limit: 9, ..ExecPage::default() };
    let running = s.control.execs(&s.ctx, id.as_str(), running).await.unwrap();
    assert_eq!(running.iter().map(|r| r.kind).collect::<Vec<_>>(), [ExecKind::Detached]);
    // It is there, and it is its caller's.
    let plain = all.iter().find(|r| r.kind == ExecKind::Captured).unwrap().exec_id.as_str();
    let record = s.control.exec_record(&s.ctx, id.as_str(), plain).await.unwrap();
    assert_eq!(record.end.unwrap().exit_code, Some(3));
    let waited = s.control.exec_wait(&s.ctx, id.as_str(), plain, None).await.unwrap();
    assert_eq!(waited.end.unwrap().exit_code, Some(3));
    let kept = s.control.exec_output(&s.ctx, id.as_str(), plain, 0, false).await.unwrap();
    let kept: Vec<_> = kept.map(Result::unwrap).collect().await;
    assert_eq!(kept, [ExecEvent::Gap { lost: 0 }, exit(3).unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_saw_is_told_as_it_was() {
    let s = System::start().await;
    let cancelled = s.plant("sb-cancelled", SandboxState::Running);
    s.worker.script(Script::Silence(vec![out("begun")]));
    let mut lines = s
        .control
        .exec_stream(&s.ctx, cancelled.as_str(), shell("x"), ExecKind::Streamed)
        .await
        .unwrap();
    lines.next().await.unwrap().unwrap();
    let plain = listed(&s, &cancelled).await.remove(0).exec_id;
    let attached = s.control.exec_output(&s.ctx, cancelled.as_str(), plain.as_str(), 0, true).await;
    assert_eq!(code(attached.map(|_| ())), ErrorCode::Conflict);
    let waited = s.control.exec_wait(&s.ctx, cancelled.as_str(), plain.as_str(), None).await;
    assert_eq!(code(waited), ErrorCode::Conflict);
    // But it can be ended.
    s.control.exec_signal(&s.ctx, cancelled.as_str(), plain.as_str(), 15).await.unwrap();
    drop(lines);
    assert_eq!(only_end(&s, &cancelled).await, (None, Some(CANCELLED.to_owned())));
    let looked = s.control.exec_output(&s.ctx, cancelled.as_str(), plain.as_str(), 0, true).await;
    let last = looked.unwrap().collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.unwrap_err().code, ErrorCode::Conflict);

    let lost = s.plant("sb-lost", SandboxState::Running);
    s.worker.script(Script::Events(vec![out("half"), Err(Fault::dead("it crashed"))]));
    assert_eq!(
        code(s.control.exec(&s.ctx, lost.as_str(), shell("x")).await),
        ErrorCode::SandboxDead
    );
    assert_eq!(only_end(&s, &lost).await, (None, Some(LOST.to_owned())));

    let open = s.plant("sb-open", SandboxState::Running);
    s.worker.next("exec", Act::FailAfter(ErrorCode::Unavailable));
    assert!(s.control.exec(&s.ctx, open.as_str(), shell("x")).await.is_err());
    assert_eq!(only_end(&s, &open).await, (None, Some(LOST.to_owned())), "it may have run");

    let refused = s.plant("sb-refused", SandboxState::Running);
    s.worker.next("exec", Act::Fail(ErrorCode::FileNotFound));
    assert!(s.control.exec(&s.ctx, refused.as_str(), shell("x")).await.is_err());
    assert!(listed(&s, &refused).await.is_empty(), "it never ran");

    // One whose caller leaves while it starts.
    let early = s.plant("sb-early", SandboxState::Running);
    s.worker.next("exec", Act::HangAfter);
    let starting = s.control.exec(&s.ctx, early.as_str(), shell("x"));
    assert!(tokio::time::timeout(Duration::from_secs(1), starting).await.is_err());
    assert_eq!(only_end(&s, &early).await, (None, Some(CANCELLED.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_no_store_and_none_is_lost_by_one_that_fails() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let writes =
        |s: &System| s.store.state().calls.iter().filter(|c| **c == "record_execs").count();
    for act in [StoreAct::Busy, StoreAct::Broken, StoreAct::BrokenAfter] {
        s.store.next("record_execs", act);
    }
    s.worker.script(Script::Events(vec![exit(7)]));
    s.control.exec(&s.ctx, id.as_str(), shell("x")).await.unwrap();
    assert_eq!(writes(&s), 0, "it is written later");
    wait_until("it is written", || writes(&s) == 4).await;
    assert_eq!(only_end(&s, &id).await.0, Some(7));
    assert_eq!(writes(&s), 4, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn bug_32_what_waits_to_be_written_is_bounded() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    // Time stands still, so nothing is written meanwhile.
    for _ in 0..8200 {
        s.worker.script(Script::Events(vec![exit(0)]));
        s.control.exec(&s.ctx, id.as_str(), shell("x")).await.unwrap();
    }
    assert_eq!(listed(&s, &id).await.len(), 8192);
    s.worker.script(Script::Events(vec![exit(0)]));
    s.control.exec(&s.ctx, id.as_str(), shell("x")).await.unwrap();
    assert_eq!(listed(&s, &id).await.len(), 8193, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn what_runs_when_the_server_leaves_is_looked_for_by_the_next() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.script(Script::Silence(vec![out("begun")]));
    let mut lines =
        s.control.exec_stream(&s.ctx, id.as_str(), shell("x"), ExecKind::Streamed).await.unwrap();
    lines.next().await.unwrap().unwrap();
    s.control.leave();
    drop(lines);
    s.control.shutdown().await;
    {
        let state = s.store.state();
        let all: Vec<_> = state.execs.values().collect();
        assert!(all.len() == 1 && all[0].end.is_none() && all[0].started_at.is_some(), "{all:?}");
    }
    let next = System::unstarted(config(), Arc::clone(&s.store), Arc::clone(&s.worker));
    next.heartbeat("local").await;
    next.control.start().await.unwrap();
    wait_until("it is waited for", || {
        next.worker.state().calls.iter().any(|call| call.0 == "exec_wait")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_history_outlives_the_record_of_its_sandbox_for_its_tenant_alone() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let tenant =
        |name: &str| Context { tenant: Some(TenantId::parse(name).unwrap()), ..Context::default() };
    s.store.state().rows.get_mut(&id).unwrap().tenant_id = tenant("mine").tenant;
    s.worker.script(Script::Events(vec![exit(0)]));
    s.control.exec(&s.ctx, id.as_str(), shell("x")).await.unwrap();
    let page = || ExecPage { limit: 9, ..ExecPage::default() };
    for forgotten in [false, true] {
        if forgotten {
            s.store.state().rows.remove(&id);
        }
        assert_eq!(s.control.execs(&tenant("mine"), id.as_str(), page()).await.unwrap().len(), 1);
        assert_eq!(s.control.execs(&s.ctx, id.as_str(), page()).await.unwrap().len(), 1);
        let other = s.control.execs(&tenant("other"), id.as_str(), page()).await;
        assert_eq!(code(other), ErrorCode::NotFound);
    }
    assert_eq!(code(s.control.execs(&s.ctx, "sb-0", page()).await), ErrorCode::NotFound);
}
