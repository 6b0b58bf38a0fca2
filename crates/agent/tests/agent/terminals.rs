//! Commands on a terminal of their own.

use protocol::agent::{AgentErrorCode as Code, Body, End, ExecSpec, Kind, Request, TtySize};

use crate::harness::*;

const SIZE: TtySize = TtySize { cols: 100, rows: 30 };

fn on_terminal(script: &str) -> ExecSpec {
    ExecSpec { detach: true, watch: true, tty: Some(SIZE), ..sh(script) }
}

/// Reads until the output holds `text`.
fn until(client: &mut Client, result: &mut Result, text: &str) {
    while !result.out().contains(text) {
        let got = client.next();
        client.take(result, got);
        assert!(result.end.is_none() || result.out().contains(text), "{:?}", result.out());
    }
}

#[test]
fn a_controlling_terminal_of_that_size() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let script = "tty >/dev/null && echo is a tty; stty size; (: </dev/tty) && echo controls; \
                      echo err >&2; exit 4";
        let seen = client.call(&Request::Exec(on_terminal(script)));
        assert_eq!(seen.out(), "is a tty\r\n30 100\r\ncontrols\r\nerr\r\n");
        assert!(seen.err.is_empty());
        assert_eq!(seen.exec().exit_code, 4);
    }
}

#[test]
fn typed_keys_act_as_on_any_terminal() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let script = "trap 'echo interrupted' INT; trap 'stty size' WINCH; stty -echo; echo ready; \
                  until [ \"$line\" = end ]; do read line && echo \"got $line\"; done; \
                  cat; echo over";
    let spec = on_terminal(script);
    let call = client.begin(&Request::Exec(spec.clone()));
    let mut seen = Result::default();
    until(&mut client, &mut seen, "ready");
    client.data(call, b"hello\n");
    until(&mut client, &mut seen, "got hello");
    client.data(call, b"\x03");
    until(&mut client, &mut seen, "interrupted");
    let mut other = agent.connect();
    let size = TtySize { cols: 7, rows: 9 };
    other.call(&Request::Resize { exec_id: spec.exec_id.clone(), size }).done();
    until(&mut client, &mut seen, "9 7");
    // Only now: what tells the size is in the foreground too.
    other.call(&Request::Signal { exec_id: spec.exec_id, signal: "INT".into() }).done();
    while seen.out().matches("interrupted").count() < 2 {
        let got = client.next();
        client.take(&mut seen, got);
    }
    client.data(call, b"end\n");
    until(&mut client, &mut seen, "got end");
    client.eof(call);
    until(&mut client, &mut seen, "over");
    while seen.end.is_none() {
        let got = client.next();
        client.take(&mut seen, got);
    }
    assert_eq!(seen.exec().exit_code, 0);
}

#[test]
fn a_program_that_closes_its_terminal_before_it_ends_is_not_hung_up_on() {
    let agent = Agent::start();
    let mut client = agent.connect();
    // As every program does that looks whether its output could be written, only slower.
    let script = "echo before; exec 0<&- 1>&- 2>&-; sleep 0.2; echo after > /dev/tty; sleep 0.2; \
                  exit 7";
    let seen = client.call(&Request::Exec(on_terminal(script)));
    assert_eq!((seen.exec().exit_code, seen.exec().signal), (7, 0));
    assert_eq!(seen.out(), "before\r\nafter\r\n");
}

#[test]
fn signals_reach_the_foreground_group() {
    let agent = Agent::start();
    let mut client = agent.connect();
    // The shell does job control: what it runs is a group of its own.
    let script = "trap : TERM; set -m; echo ready; sleep 100; echo \"slept $?\"; exit 6";
    let spec = on_terminal(script);
    client.begin(&Request::Exec(spec.clone()));
    let mut seen = Result::default();
    until(&mut client, &mut seen, "ready");
    let mut other = agent.connect();
    wait_for("the sleep and then the shell have ended", || {
        let signal = Request::Signal { exec_id: spec.exec_id.clone(), signal: "TERM".into() };
        other.call(&signal).end != Some(End::Ok(Body::Done))
    });
    until(&mut client, &mut seen, "slept 143");
    while seen.end.is_none() {
        let got = client.next();
        client.take(&mut seen, got);
    }
    assert_eq!(seen.exec().exit_code, 6);
}

#[test]
fn what_was_written_before_the_end_arrives() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for _ in 0..20 {
        let seen = client.call(&Request::Exec(on_terminal("seq 1 5000; sleep 50 & exit 1")));
        let whole: String = (1..=5000).map(|i| format!("{i}\r\n")).collect();
        assert_eq!(seen.exec().exit_code, 1);
        assert!(seen.out() == whole, "{} of {} bytes", seen.out.len(), whole.len());
    }
}

#[test]
fn two_hundred_at_once_and_no_descriptor_stays() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let before = agent.open_files();
    let specs: Vec<_> = (0..200).map(|_| on_terminal("read x; echo $x")).collect();
    let calls: Vec<_> = specs.iter().map(|s| client.begin(&Request::Exec(s.clone()))).collect();
    for (n, call) in calls.iter().enumerate() {
        client.data(*call, format!("terminal-{n}\n").as_bytes());
    }
    let mut results: Vec<Result> = calls.iter().map(|_| Result::default()).collect();
    while results.iter().any(|r| r.end.is_none()) {
        let got = client.next();
        if got.kind != Kind::Credit {
            let n = calls.iter().position(|c| *c == got.call).unwrap();
            client.take(&mut results[n], got);
        }
    }
    for (n, result) in results.iter().enumerate() {
        assert!(result.out().contains(&format!("terminal-{n}\r\n")), "{n}: {:?}", result.out());
        assert_eq!(result.exec().exit_code, 0);
    }
    wait_for("their descriptors are closed", || agent.open_files() <= before);
}

#[test]
fn without_a_terminal_there_is_nothing_to_resize() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let spec = ExecSpec { detach: true, ..sh("sleep 100") };
    client.call(&Request::Exec(spec.clone())).done();
    let resize = Request::Resize { exec_id: spec.exec_id.clone(), size: SIZE };
    assert_eq!(client.call(&resize).error(), Code::BadRequest);
    client.call(&Request::Kill { exec_id: spec.exec_id }).done();
}
