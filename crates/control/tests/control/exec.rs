//! Commands: timeouts, bounded capture, and ends that are never made up.

use std::time::Duration;

use control::{ExecInput, ExecKind, ExecMode};
use futures_util::StreamExt;
use protocol::worker::{Bytes, ExecEvent, ExecExit, OutputStream};
use types::{ErrorCode, Fault, SandboxState};

use crate::support::{Act, Script, System, code, config, wait_until};

fn shell(command: &str) -> ExecInput {
    ExecInput { command: command.to_owned(), ..ExecInput::default() }
}

fn out(text: &'static str) -> Result<ExecEvent, Fault> {
    Ok(ExecEvent::Output {
        stream: OutputStream::Stdout,
        data: Bytes::from_static(text.as_bytes()),
    })
}

fn err(text: &'static str) -> Result<ExecEvent, Fault> {
    Ok(ExecEvent::Output {
        stream: OutputStream::Stderr,
        data: Bytes::from_static(text.as_bytes()),
    })
}

fn exit(exit_code: i32) -> Result<ExecEvent, Fault> {
    Ok(ExecEvent::Exit(ExecExit { exit_code, ..ExecExit::default() }))
}

#[tokio::test(start_paused = true)]
async fn both_streams_and_the_code() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.script(Script::Events(vec![out("o"), err("e"), out("ut"), exit(137)]));
    let mut input = shell("echo");
    input.args = vec!["a b".to_owned()];
    input.workdir = Some("  ".to_owned());
    let done = s.control.exec(&s.ctx, id.as_str(), input).await.unwrap();
    assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"out"[..], &b"e"[..]));
    assert_eq!(done.exit.exit_code, 137);
    assert!(!done.stdout_truncated && !done.stderr_truncated);
    let order = s.worker.state().orders[0].clone();
    assert_eq!(order.argv, ["sh", "-c", "echo 'a b'"]);
    assert_eq!(order.workdir, None);
    assert_eq!(order.timeout, Some(Duration::from_secs(600)), "BUG-22: the maximum holds");
}

#[tokio::test(start_paused = true)]
async fn bug_32_captured_output_is_bounded_and_drained() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let mut events: Vec<_> = (0..1000).map(|_| out("0123456789")).collect();
    events.extend([err("0123456789abcdef"), exit(3)]);
    s.worker.script(Script::Events(events));
    let done = s.control.exec(&s.ctx, id.as_str(), shell("yes")).await.unwrap();
    assert_eq!(done.stdout, b"0123456789012345");
    assert!(done.stdout_truncated);
    assert_eq!(done.stderr, b"0123456789abcdef");
    assert!(!done.stderr_truncated, "exactly full is not cut");
    assert_eq!(done.exit.exit_code, 3);
}

#[tokio::test(start_paused = true)]
async fn bug_22_no_timeout_is_no_way_around_the_maximum() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    for timeout in [None, Some(Duration::ZERO)] {
        s.worker.script(Script::Silence(vec![out("begun")]));
        let began = tokio::time::Instant::now();
        let input = ExecInput { timeout, ..shell("sleep inf") };
        let told = s.control.exec(&s.ctx, id.as_str(), input).await;
        // This worker ignores deadlines: control does not rely on it.
        assert_eq!(code(told), ErrorCode::Timeout);
        assert!(began.elapsed() < Duration::from_secs(620));
    }
    assert_eq!(*s.worker.cancelled.lock().unwrap(), 2, "what is given up is cancelled");
    let above = ExecInput { timeout: Some(Duration::from_secs(601)), ..shell("true") };
    assert_eq!(code(s.control.exec(&s.ctx, "sb-0", above.clone()).await), ErrorCode::ResourceLimit);
    let told = s.control.exec_stream(&s.ctx, "sb-0", above, ExecKind::Streamed).await;
    assert_eq!(code(told.map(|_| ())), ErrorCode::ResourceLimit);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_timeout_ends_with_its_sandbox() {
    let mut c = config();
    for (default, wanted) in [(0, None), (30, Some(Duration::from_secs(30)))] {
        c.defaults.default_exec_timeout = Duration::from_secs(default);
        let s = System::with(c.clone()).await;
        let id = s.plant("sb-x", SandboxState::Running);
        s.worker.script(Script::Events(vec![out("a"), exit(0)]));
        let stream = s
            .control
            .exec_stream(&s.ctx, id.as_str(), shell("x"), ExecKind::Streamed)
            .await
            .unwrap();
        assert_eq!(s.worker.state().orders[0].timeout, wanted);
        assert_eq!(stream.count().await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_it_is_a_timeout() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    let ended = ExecExit { exit_code: 124, timed_out: true, ..ExecExit::default() };
    s.worker.script(Script::Events(vec![out("begun"), Ok(ExecEvent::Exit(ended))]));
    let input = ExecInput { timeout: Some(Duration::from_millis(300)), ..shell("sleep 20") };
    let done = s.control.exec(&s.ctx, id.as_str(), input).await.unwrap();
    assert!(done.exit.timed_out && done.stdout == b"begun");
    assert_eq!(done.timeout, Some(Duration::from_millis(300)));
}

#[tokio::test(start_paused = true)]
async fn an_end_without_an_exit_is_never_a_success() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.script(Script::Events(vec![out("half")]));
    let told = s.control.exec(&s.ctx, id.as_str(), shell("x")).await;
    assert_eq!(code(told), ErrorCode::SandboxDead);
    let broken = Err(Fault::unavailable("the server is going"));
    s.worker.script(Script::Events(vec![out("half"), broken]));
    let told = s.control.exec(&s.ctx, id.as_str(), shell("x")).await;
    assert_eq!(code(told), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_cancels_the_command() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.script(Script::Silence(vec![out("begun")]));
    let control = s.control.clone();
    let call = tokio::spawn(async move {
        control.exec(&control::Context::default(), id.as_str(), shell("sleep inf")).await
    });
    wait_until("it runs", || s.worker.calls("exec") == 1).await;
    call.abort();
    assert!(call.await.is_err());
    assert_eq!(*s.worker.cancelled.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_request_is_judged_before_the_sandbox_is_looked_up() {
    let s = System::start().await;
    let blank = ExecInput { mode: ExecMode::Argv, ..shell(" ") };
    assert_eq!(code(s.control.exec(&s.ctx, "sb-0", blank).await), ErrorCode::BadRequest);
    assert_eq!(s.store.state().calls.iter().filter(|c| **c == "get").count(), 0);
    assert_eq!(code(s.control.exec(&s.ctx, "sb-0", shell("")).await), ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_the_worker_refuses_passes_through_and_a_deaf_one_is_given_up() {
    let s = System::start().await;
    let id = s.plant("sb-x", SandboxState::Running);
    s.worker.next("exec", Act::Fail(ErrorCode::FileNotFound));
    let told = s.control.exec(&s.ctx, id.as_str(), shell("x")).await;
    assert_eq!(code(told), ErrorCode::FileNotFound);
    s.worker.next("exec", Act::Hang);
    let told = s.control.exec(&s.ctx, id.as_str(), shell("x")).await;
    assert_eq!(code(told), ErrorCode::Unavailable);
}
