//! Commands with a record: started once, found again, ended for good.

use std::sync::Arc;

use control::{ExecInput, ExecKind};
use futures_util::StreamExt;
use protocol::worker::{Bytes, ExecEvent, ExecExit, OutputStream};
use store::{ExecEnd, ExecOutput};
use types::{ErrorCode, ExecId, Fault, SandboxState};

use crate::support::{Act, Script, System, code, config, wait_until};

fn job(command: &str) -> ExecInput {
    let exec_id = Some(ExecId::parse("job").unwrap());
    ExecInput { command: command.to_owned(), exec_id, ..ExecInput::default() }
}

fn out(text: &'static str) -> Result<ExecEvent, Fault> {
    let data = Bytes::from_static(text.as_bytes());
    Ok(ExecEvent::Output { stream: OutputStream::Stdout, data })
}

fn exit(exit_code: i32) -> Result<ExecEvent, Fault> {
    Ok(ExecEvent::Exit(ExecExit { exit_code, ..ExecExit::default() }))
}

fn starts(s: &System) -> usize {
    let state = s.worker.state();
    state.calls.iter().filter(|c| c.0 == "exec" || c.0 == "start").count()
}

#[tokio::test(start_paused = true)]
async fn the_same_id_starts_nothing_twice() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let id = id.as_str();
    let started = s.control.exec_detached(&s.ctx, id, job("sleep")).await.unwrap();
    assert_eq!(started.as_str(), "job");
    wait_until("it is known to run", || {
        s.store.state().execs.values().any(|e| e.started_at.is_some())
    })
    .await;
    assert_eq!(s.control.exec_detached(&s.ctx, id, job("sleep")).await.unwrap(), started);
    assert_eq!(starts(&s), 1);
    let other = s.control.exec_detached(&s.ctx, id, job("other")).await;
    assert_eq!(code(other), ErrorCode::Conflict);
    // Captured, it attaches to what runs.
    s.worker.script(Script::Events(vec![out("hi"), exit(3)]));
    let done = s.control.exec(&s.ctx, id, job("sleep")).await.unwrap();
    assert_eq!((done.stdout.as_slice(), done.exit.exit_code), (&b"hi"[..], 3));
    s.worker.script(Script::Events(vec![out("hi"), exit(3)]));
    let mut lines =
        s.control.exec_stream(&s.ctx, id, job("sleep"), ExecKind::Streamed).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), out("hi").unwrap());
    assert_eq!(starts(&s), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_second_start() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.next("start", Act::FailAfter(ErrorCode::Unavailable));
    let lost = s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await;
    assert_eq!(code(lost), ErrorCode::Unavailable);
    assert_eq!(s.store.state().execs.len(), 1, "it may run");
    // The sandbox takes no id twice, and says so.
    s.worker.next("start", Act::Fail(ErrorCode::Conflict));
    s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await.unwrap();
    wait_until("it is known to run", || {
        s.store.state().execs.values().all(|e| e.started_at.is_some())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_leaves_no_record() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.next("start", Act::Fail(ErrorCode::FileNotFound));
    let refused = s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await;
    assert_eq!(code(refused), ErrorCode::FileNotFound);
    assert!(s.store.state().execs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_ended_one_answers_from_its_record() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await.unwrap();
    let key = (id.clone(), ExecId::parse("job").unwrap());
    {
        let mut state = s.store.state();
        let record = state.execs.get_mut(&key).unwrap();
        record.end = Some(ExecEnd {
            at: record.created_at,
            exit_code: Some(9),
            signal: 0,
            timed_out: false,
            oom_killed: false,
            lost: None,
        });
        let mut output = ExecOutput { first: 5, ..ExecOutput::default() };
        output.push(false, b"kept");
        state.outputs.insert(key, output);
    }
    let lines =
        s.control.exec_stream(&s.ctx, id.as_str(), job("sleep"), ExecKind::Streamed).await.unwrap();
    let told: Vec<_> = lines.map(|e| e.unwrap()).collect().await;
    assert_eq!(told, [ExecEvent::Gap { lost: 5 }, out("kept").unwrap(), exit(9).unwrap()]);
    let signal = s.control.exec_signal(&s.ctx, id.as_str(), "job", 15).await;
    assert_eq!(code(signal), ErrorCode::Conflict);
    assert_eq!(starts(&s), 1);
}

#[tokio::test(start_paused = true)]
async fn another_server_waits_for_what_an_earlier_one_started() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await.unwrap();
    s.control.shutdown().await;
    let waits = |s: &System| s.worker.state().calls.iter().filter(|c| c.0 == "exec_wait").count();
    let before = waits(&s);
    let next = System::unstarted(config(), Arc::clone(&s.store), Arc::clone(&s.worker));
    next.heartbeat("local").await;
    next.control.start().await.unwrap();
    wait_until("it is waited for", || waits(&next) > before).await;
}

fn held(s: &System) -> Vec<u8> {
    s.store.state().outputs.values().flat_map(|output| output.bytes.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_fetched_when_a_worker_is_about_to_end_a_sandbox() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.uplink.ending(id.clone()).await.unwrap();
    assert!(s.store.state().outputs.is_empty(), "nobody has said anything");
    s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await.unwrap();
    s.worker.script(Script::Events(vec![out("last "), out("words")]));
    s.uplink.ending(id.clone()).await.unwrap();
    assert_eq!(held(&s), b"last words");
    // A sandbox that cannot be asked is not waited for.
    s.worker.next("attach", Act::Hang);
    s.uplink.ending(id).await.unwrap();
    assert_eq!(held(&s), b"last words");
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_looked_at_again_and_again_and_kept_when_it_grew() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.control.exec_detached(&s.ctx, id.as_str(), job("sleep")).await.unwrap();
    // Each look asks whether there is more, and fetches it if there is.
    s.worker.script(Script::Events(vec![out("a")]));
    s.worker.script(Script::Events(vec![out("a")]));
    wait_until("the first look", || held(&s) == b"a").await;
    s.worker.script(Script::Events(vec![Ok(ExecEvent::Paused)]));
    s.worker.script(Script::Events(vec![out("b")]));
    s.worker.script(Script::Events(vec![out("a"), out("b")]));
    wait_until("one more", || held(&s) == b"ab").await;
}
