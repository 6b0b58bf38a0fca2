//! The client to the agent: flow, faults, and agents that attack.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::agent::{MAX_PAYLOAD, WINDOW};
use protocol::worker::{ExecEvent, ExecOrder, Stdin, TtySize, WorkerLink};
use types::{ErrorCode, SandboxState};

use crate::support::{World, collect, command, run, wait_for, within};

#[tokio::test]
async fn concurrent_calls_share_a_connection_and_keep_apart() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let calls = (0..50).map(|n| {
        let (worker, id) = (&worker, &id);
        async move {
            let text = format!("answer {n}");
            let (output, end) = run(worker, id, &["echo", &text]).await;
            end.unwrap();
            assert_eq!(output, text.as_bytes());
        }
    });
    within("fifty calls", futures_util::future::join_all(calls)).await;
    assert_eq!(world.provider.connects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stalled_consumer_stops_its_own_command_only() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let mut stalled = worker.exec(command(&id, &["flood", "8000000"]), Stdin::Empty).await.unwrap();
    wait_for("a full window", async || {
        (*agent.flooded.lock().unwrap() >= WINDOW as usize).then_some(())
    })
    .await;
    // Others go through, and the stalled one has not gone beyond its window meanwhile.
    for _ in 0..20 {
        run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    }
    assert!(*agent.flooded.lock().unwrap() <= WINDOW as usize + MAX_PAYLOAD);
    let first = stalled.next().await.unwrap().unwrap();
    assert!(matches!(first, ExecEvent::Output { data, .. } if data.len() <= MAX_PAYLOAD));
    let (rest, end) = collect(stalled).await;
    assert_eq!(end.unwrap().exit_code, 3);
    assert_eq!(rest.len() + MAX_PAYLOAD, 8_000_000);
}

#[tokio::test]
async fn tiny_pieces_of_both_streams_keep_their_order() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let mut stream = worker.exec(command(&id, &["tiny", "3000"]), Stdin::Empty).await.unwrap();
    let (mut count, mut last) = (0, None);
    while let Some(event) = within("output", stream.next()).await {
        if let ExecEvent::Output { stream, data } = event.unwrap() {
            assert_eq!(data.len(), 1);
            assert_ne!(last.replace(stream), Some(stream));
            count += 1;
        }
    }
    assert_eq!(count, 3000);
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_command() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    drop(worker.exec(command(&id, &["flood", "100000000"]), Stdin::Empty).await.unwrap());
    drop(worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap());
    wait_for("two cancels", async || (*agent.cancelled.lock().unwrap() == 2).then_some(())).await;
    run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    assert_eq!(*agent.cancelled.lock().unwrap(), 2, "a command that ended is not cancelled");
}

#[tokio::test]
async fn a_lost_connection_fails_what_ran_and_is_opened_again() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let beside = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    let (output, end) = run(&worker, &id, &["hang-up"]).await;
    assert_eq!(output, b"half");
    for fault in [end.unwrap_err(), collect(beside).await.1.unwrap_err()] {
        assert_eq!(fault.code, ErrorCode::Unavailable);
        assert_eq!(fault.message, format!("the connection to sandbox {id} was lost"));
    }
    run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    assert_eq!(world.provider.connects.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_agent_that_breaks_the_protocol_is_cut_off() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    for lie in ["garbage", "overrun", "on-input", "bad-end"] {
        let end = match worker.exec(command(&id, &[lie]), Stdin::Empty).await {
            Ok(stream) => collect(stream).await.1.map(|_| ()),
            Err(fault) => Err(fault),
        };
        assert_eq!(end.unwrap_err().code, ErrorCode::Unavailable, "{lie}");
        run(&worker, &id, &["echo", "still here"]).await.1.unwrap();
    }
    run(&worker, &id, &["stray-frames"]).await.1.unwrap();
    let fact = worker.status(id).await.unwrap().unwrap();
    assert_eq!(fact.state, SandboxState::Running);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_opened_again() {
    let mut world = World::new();
    world.config.guest_idle = Duration::from_millis(30);
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let open = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    let before = world.provider.connects.load(Ordering::SeqCst);
    let closed =
        wait_for("nothing", async || (*agent.connections.lock().unwrap() == 0).then_some(()));
    let in_use = tokio::time::timeout(world.config.guest_idle * 5, closed).await;
    assert!(in_use.is_err(), "a connection with a silent command on it was closed");
    assert_eq!(world.provider.connects.load(Ordering::SeqCst), before);
    drop(open);
    wait_for("the close", async || (*agent.connections.lock().unwrap() == 0).then_some(())).await;
    run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    assert_eq!(world.provider.connects.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn what_the_agent_refuses_is_told_as_it_is() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let fault = worker.exec(command(&id, &["none-left"]), Stdin::Empty).await.err().unwrap();
    assert_eq!((fault.code, fault.message.as_str()), (ErrorCode::ResourceLimit, "no process left"));
    let huge = "x".repeat(MAX_PAYLOAD);
    let fault = worker.exec(command(&id, &["echo", &huge]), Stdin::Empty).await.err().unwrap();
    assert_eq!(fault.code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn commands_live_on_when_the_worker_stops() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let stream = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    worker.shutdown().await;
    assert_eq!(collect(stream).await.1.unwrap_err().code, ErrorCode::Unavailable);
    wait_for("the close", async || (*agent.connections.lock().unwrap() == 0).then_some(())).await;
    assert_eq!(*agent.cancelled.lock().unwrap(), 0);
    assert!(world.provider.has(&id));
    let refused = worker.exec(command(&id, &["echo", "x"]), Stdin::Empty).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn stdin_flows_beside_the_output() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    // Twice the window each way: it can only pass if both directions move together.
    let piece = bytes::Bytes::from(vec![b'x'; 100_000]);
    let input = futures_util::stream::repeat_with(move || Ok(piece.clone())).take(6);
    let stream = worker.exec(command(&id, &["cat"]), Stdin::Stream(Box::pin(input))).await.unwrap();
    let (output, end) = collect(stream).await;
    end.unwrap();
    assert_eq!(output.len(), 600_000);
}

#[tokio::test]
async fn commands_that_are_kept_are_not_cancelled_by_a_dropped_stream() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let stream = worker.exec(command(&id, &["hang"]), Stdin::Empty).await.unwrap();
    worker.keep_commands();
    drop(stream);
    // A frame sent after the cancel that must not be has been answered.
    run(&worker, &id, &["echo", "x"]).await.1.unwrap();
    assert_eq!(*agent.cancelled.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_older_agent_is_not_asked_for_what_it_does_not_know() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let size = TtySize { cols: 80, rows: 24 };
    let plain = command(&id, &["echo", "x"]);
    for order in [
        ExecOrder { detach: true, ..plain.clone() },
        ExecOrder { tty: Some(size), ..plain.clone() },
        ExecOrder { user: Some("web".to_owned()), ..plain.clone() },
    ] {
        let fault = worker.exec(order, Stdin::Empty).await.err().unwrap();
        assert_eq!(fault.code, ErrorCode::Unprocessable);
        assert!(fault.message.contains("older release"), "{fault}");
    }
    let (output, _) = collect(worker.exec(plain, Stdin::Empty).await.unwrap()).await;
    assert_eq!(output, b"x");
}
