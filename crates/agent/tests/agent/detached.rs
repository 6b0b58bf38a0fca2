//! Commands that belong to no call: started, found again, watched by several, fed, killed.

use protocol::agent::{
    AgentErrorCode as Code, Body, Channel, End, Event, ExecSpec, Kind, Limits, Request,
};

use crate::harness::*;

fn detached(script: &str) -> ExecSpec {
    ExecSpec { detach: true, stdin: true, ..sh(script) }
}

fn start(client: &mut Client, spec: &ExecSpec) {
    let started = client.call(&Request::Exec(spec.clone()));
    assert_eq!(started.events, [Event::Started { exec_id: spec.exec_id.clone() }]);
    started.done();
}

fn attach(exec_id: &str, offset: u64, follow: bool) -> Request {
    Request::Attach { exec_id: exec_id.into(), offset, follow, hold: false, quiet: false }
}

fn wait(client: &mut Client, exec_id: &str) -> i32 {
    let (offset, follow, hold, quiet) = (0, true, false, true);
    let wait = Request::Attach { exec_id: exec_id.into(), offset, follow, hold, quiet };
    let result = client.call(&wait);
    assert!(result.out.is_empty() && result.gaps.is_empty());
    result.exec().exit_code
}

#[test]
fn a_lost_connection_loses_nothing() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let spec = detached("echo one; echo two >&2; read line; echo got $line; exit 3");
        let mut first = agent.connect();
        start(&mut first, &spec);
        let twice = first.call(&Request::Exec(spec.clone()));
        assert_eq!(twice.error(), Code::Conflict);
        drop(first);
        let mut second = agent.connect();
        wait_for("its first words", || {
            let seen = second.call(&attach(&spec.exec_id, 0, false));
            assert_eq!(seen.end, Some(End::Ok(Body::Paused)));
            (seen.out(), seen.err()) == ("one\n".into(), "two\n".into())
        });
        let call = second.begin(&Request::Input { exec_id: spec.exec_id.clone(), close: true });
        second.data(call, b"hello\n");
        second.eof(call);
        second.finish(call).done();
        assert_eq!(wait(&mut second, &spec.exec_id), 3);
        let seen = second.call(&attach(&spec.exec_id, 4, true));
        assert_eq!((seen.out(), seen.err()), ("got hello\n".into(), "two\n".into()));
        assert_eq!(seen.exec().exit_code, 3);
        let beyond = second.call(&attach(&spec.exec_id, 1000, true));
        assert_eq!(beyond.error(), Code::BadRequest);
        assert_eq!(second.call(&attach("nobody", 0, true)).error(), Code::NoSuchExec);
        // Its id is never used again.
        assert_eq!(second.call(&Request::Exec(spec.clone())).error(), Code::Conflict);
        let late = Request::Input { exec_id: spec.exec_id, close: false };
        assert_eq!(second.call(&late).error(), Code::Conflict);
    }
}

#[test]
fn what_the_ring_no_longer_holds_is_a_gap_of_that_size() {
    let limits = Limits { ring_bytes: 10_000, ..Limits::default() };
    let agent = Agent::with(Setup { limits, ..Setup::default() });
    let mut client = agent.connect();
    let spec = detached("i=0; while [ $i -lt 3000 ]; do printf '%07d\n' $i; i=$((i+1)); done");
    start(&mut client, &spec);
    assert_eq!(wait(&mut client, &spec.exec_id), 0);
    let seen = client.call(&attach(&spec.exec_id, 800, true));
    let [(0, lost)] = seen.gaps[..] else { panic!("{:?}", seen.gaps) };
    assert_eq!(800 + lost as usize + seen.out.len(), 3000 * 8);
    assert!((5_000..=10_000).contains(&seen.out.len()), "{}", seen.out.len());
    assert!(seen.out().ends_with("0002999\n"));
    let told: usize = seen.out().split('\n').next().unwrap().len();
    let whole: Vec<u8> = (0..3000).flat_map(|i| format!("{i:07}\n").into_bytes()).collect();
    assert!(whole.ends_with(&seen.out) && told <= 7);
}

#[test]
fn whoever_holds_gets_every_byte_and_a_slow_viewer_holds_nobody() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let spec = ExecSpec { watch: true, ..detached("read go; seq 1 300000; exit 5") };
    let call = client.begin(&Request::Exec(spec.clone()));
    let mut result = Result::default();
    let got = client.next();
    client.take(&mut result, got);
    // Somebody who looks and never grants: he gets his window, no more.
    let mut idle = agent.connect();
    let looking = idle.begin(&attach(&spec.exec_id, 0, true));
    client.data(call, b"\n");
    while result.end.is_none() {
        let got = client.next();
        client.take(&mut result, got);
    }
    let whole: String = (1..=300_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(result.exec().exit_code, 5);
    assert!(result.gaps.is_empty() && result.out() == whole);
    // He takes up again, and is told what he missed.
    let mut late = Result::default();
    while late.end.is_none() {
        let got = idle.next();
        assert_eq!(got.call, looking);
        idle.take(&mut late, got);
    }
    let lost: u64 = late.gaps.iter().map(|(_, lost)| lost).sum();
    assert!(lost > 0);
    assert_eq!(lost as usize + late.out.len(), whole.len());
    let (at, _) = late.gaps[0];
    assert!(whole.as_bytes().starts_with(&late.out[..at]));
    assert!(whole.as_bytes().ends_with(&late.out[at..]) || late.gaps.len() > 1);
}

#[test]
fn the_only_one_that_holds_sets_the_pace_until_he_goes() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.granting = false;
    let script = "seq 1 300000; touch \"$PWD\"/done";
    let spec = ExecSpec { watch: true, ..detached(script) };
    client.begin(&Request::Exec(spec.clone()));
    let mut seen = 0;
    while seen < protocol::agent::WINDOW as usize {
        let got = client.next();
        seen += if got.kind == Kind::Data { got.payload.len() } else { 0 };
    }
    let done = agent.path("/workspace/done");
    assert!(!client.readable(std::time::Duration::from_millis(50)) && !done.exists());
    drop(client);
    wait_for("it runs on without him", || done.exists());
    assert_eq!(wait(&mut agent.connect(), &spec.exec_id), 0);
}

#[test]
fn one_who_holds_it_and_stalls_lets_go_for_the_sake_of_others() {
    let agent = Agent::start();
    let mut stalled = agent.connect();
    stalled.granting = false;
    let spec = ExecSpec { watch: true, ..detached("seq 1 300000; exit 3") };
    let call = stalled.begin(&Request::Exec(spec.clone()));
    let mut other = agent.connect();
    let mut seen = Result::default();
    wait_for("it has started", || {
        let view = other.call(&attach(&spec.exec_id, 0, false));
        view.end == Some(End::Ok(Body::Paused)) && !view.out.is_empty()
    });
    let whole: String = (1..=300_000).map(|i| format!("{i}\n")).collect();
    let looking = other.begin(&attach(&spec.exec_id, 0, true));
    while seen.end.is_none() {
        let got = other.next();
        assert_eq!(got.call, looking);
        other.take(&mut seen, got);
    }
    // What went by before he came is a gap; nothing is missing since.
    let lost: u64 = seen.gaps.iter().map(|(_, lost)| lost).sum();
    assert_eq!(lost as usize + seen.out.len(), whole.len());
    assert!(seen.gaps.iter().all(|(at, _)| *at == 0) && whole.ends_with(&seen.out()));
    // He is told what he missed.
    stalled.granting = true;
    stalled.grant(call, 200_000);
    let mut late = Result::default();
    while late.end.is_none() {
        let got = stalled.next();
        stalled.take(&mut late, got);
    }
    let lost: u64 = late.gaps.iter().map(|(_, lost)| lost).sum();
    assert!(lost > 0);
    assert_eq!(lost as usize + late.out.len(), whole.len());
    assert_eq!(late.exec().exit_code, 3);
}

#[test]
fn killed_with_all_that_descends_from_it() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let spec = detached("setsid sleep 1234 & echo $!; sleep 1234");
        start(&mut client, &spec);
        let mut pid = 0;
        wait_for("the child's pid", || {
            let seen = client.call(&attach(&spec.exec_id, 0, false));
            pid = seen.out().trim().parse().unwrap_or(0);
            pid > 0
        });
        // A view that is given up ends nothing.
        let view = client.begin(&attach(&spec.exec_id, 0, true));
        client.cancel(view);
        assert_eq!(client.finish(view).error(), Code::Cancelled);
        assert!(alive(pid));
        client.call(&Request::Kill { exec_id: spec.exec_id.clone() }).done();
        let seen = client.call(&attach(&spec.exec_id, 0, true));
        assert_eq!((seen.exec().exit_code, seen.exec().signal), (137, 9));
        wait_for("the descendant has gone", || !alive(pid));
        let again = client.call(&Request::Kill { exec_id: spec.exec_id });
        assert_eq!(again.error(), Code::Conflict);
    }
}

#[test]
fn a_timeout_is_told_in_the_log() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let spec = ExecSpec { timeout_ms: Some(30), ..detached("echo begun; sleep 100") };
    start(&mut client, &spec);
    let seen = client.call(&attach(&spec.exec_id, 0, true));
    assert_eq!((seen.out(), seen.err()), ("begun\n".into(), "exec timeout\n".into()));
    assert!(seen.exec().timed_out);
}

#[test]
fn many_ended_ones_are_let_go_and_their_ids_stay() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let first = detached("echo first");
    start(&mut client, &first);
    assert_eq!(wait(&mut client, &first.exec_id), 0);
    let before = agent.resident();
    for _ in 0..70 {
        let spec = detached("head -c 200000 /dev/zero");
        start(&mut client, &spec);
        assert_eq!(wait(&mut client, &spec.exec_id), 0);
    }
    assert_eq!(client.call(&attach(&first.exec_id, 0, true)).error(), Code::NoSuchExec);
    assert_eq!(client.call(&Request::Exec(first)).error(), Code::Conflict);
    let grown = agent.resident().saturating_sub(before);
    assert!(grown < 12 << 10, "grown by {grown} KiB");
}

#[test]
fn what_a_command_took_before_it_ended_was_taken() {
    let agent = Agent::start();
    for more in [false, true] {
        let mut client = agent.connect();
        let spec = detached("read line; exit 3");
        start(&mut client, &spec);
        let input = Request::Input { exec_id: spec.exec_id.clone(), close: false };
        let call = client.begin(&input);
        client.data(call, b"all of it\n");
        assert_eq!(wait(&mut agent.connect(), &spec.exec_id), 3);
        // Its sender had not said that this was all.
        if more {
            client.data(call, b"more\n");
            assert_eq!(client.finish(call).error(), Code::Conflict);
        } else {
            client.eof(call);
            client.finish(call).done();
        }
    }
}

#[test]
fn several_feed_one_and_each_is_answered() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let spec = detached("exec cat | wc -c");
    start(&mut client, &spec);
    let input = |close| Request::Input { exec_id: spec.exec_id.clone(), close };
    let calls: Vec<u32> = (0..4).map(|_| client.begin(&input(false))).collect();
    assert_eq!(client.call(&input(false)).error(), Code::NoResources);
    for call in &calls {
        client.data(*call, &[b'x'; 50_000]);
        client.data(*call, &[b'y'; 50_000]);
        client.eof(*call);
    }
    let mut ended = 0;
    while ended < calls.len() {
        let got = client.next();
        if got.kind == Kind::End {
            assert_eq!(serde_json::from_slice::<End>(&got.payload).unwrap(), End::Ok(Body::Done));
            ended += 1;
        }
        assert_eq!(got.channel, Channel::Input);
    }
    let last = client.begin(&input(true));
    client.eof(last);
    client.finish(last).done();
    let seen = client.call(&attach(&spec.exec_id, 0, true));
    assert_eq!(seen.out().trim(), "400000");
}
