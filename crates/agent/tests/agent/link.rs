//! Connections: the handshake, hostile bytes, loss, and calls that do not stop one another.

use std::time::Duration;

use protocol::agent::{
    AgentErrorCode as Code, Body, Channel, ExecInfo, ExecSpec, Kind, Limits, MAX_PAYLOAD,
    PROTOCOL_VERSION, Request, WINDOW, capability, encode_header,
};

use crate::harness::*;

fn execs(client: &mut Client) -> Vec<ExecInfo> {
    match client.call(&Request::Execs).body() {
        Body::Execs { execs } => execs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ends_greet() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        assert_eq!((client.hello.version, client.hello.sandbox_id.as_str()), (1, "sb-test"));
        let has = |name: &str| client.hello.capabilities.iter().any(|c| c == name);
        assert!(has(capability::EXEC) && has(capability::FILES) && has(capability::LOGS));
        assert_eq!(has(capability::EXEC_CGROUP), hold == Hold::Cgroup);
        client.send(Kind::Ping, Channel::Input, 0, b"are you there");
        let pong = client.next();
        assert_eq!((pong.kind, &pong.payload[..]), (Kind::Pong, &b"are you there"[..]));
    }
}

#[test]
fn versions_that_do_not_meet_part_politely() {
    let agent = Agent::start();
    for hello in
        [format!(r#"{{"version":{},"min_version":{0}}}"#, PROTOCOL_VERSION + 1), "{}".to_owned()]
    {
        let mut client = agent.connect_raw();
        assert_eq!(client.next().kind, Kind::Hello);
        client.send(Kind::Hello, Channel::Input, 0, hello.as_bytes());
        assert!(client.try_next().is_none());
    }
}

#[test]
fn broken_frames_close_their_connection_and_nothing_else() {
    let agent = Agent::start();
    let mut bystander = agent.connect();
    let call = bystander.begin(&Request::Exec(argv(&["sleep", "1000"])));
    bystander.next();
    let frame = |kind: u8, channel: u8, call: u32, payload: &[u8]| {
        let mut bytes = encode_header(Kind::Data, Channel::Input, call, payload.len()).to_vec();
        (bytes[8], bytes[9]) = (kind, channel);
        bytes.extend_from_slice(payload);
        bytes
    };
    let mut long = encode_header(Kind::Data, Channel::Input, 1, 0).to_vec();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut reserved = frame(9, 0, 0, b"");
    reserved[11] = 1;
    let exec =
        serde_json::to_vec(&Request::Exec(ExecSpec { stdin: true, ..argv(&["sleep", "5"]) }));
    let mut flood = frame(2, 0, 1, &exec.unwrap());
    // Twice the window: the pipe takes some, for which the agent gives credit.
    for _ in 0..2 * WINDOW as usize / MAX_PAYLOAD {
        flood.extend(frame(5, 0, 1, &[0; MAX_PAYLOAD]));
    }
    let status = br#"{"op":"status"}"#;
    let twice = [frame(2, 0, 1, br#"{"op":"write","path":"x"}"#), frame(2, 0, 1, status)].concat();
    let after_hello = [
        ("too long", long),
        ("reserved bytes", reserved),
        ("unknown kind", frame(99, 0, 1, b"")),
        ("unknown channel", frame(5, 9, 1, b"")),
        ("output to the agent", frame(5, 1, 1, b"x")),
        ("a second hello", frame(1, 0, 0, br#"{"version":1}"#)),
        ("call 0", frame(2, 0, 0, status)),
        ("a call opened twice", twice),
        ("not JSON", frame(2, 0, 1, b"\xff\xfe")),
        ("an end", frame(3, 0, 1, b"{}")),
        ("an event", frame(4, 0, 1, b"{}")),
        ("a short credit", frame(7, 0, 1, b"x")),
        ("a large ping", frame(9, 0, 0, &[0; 65])),
        ("more than the window", flood),
    ];
    for (what, bytes) in after_hello {
        let mut client = agent.connect();
        // The agent may close before it has read all.
        let _ = client.raw(&bytes);
        while let Some(got) = client.try_next() {
            assert!(matches!(got.kind, Kind::Event | Kind::Credit | Kind::End), "{what}: {got:?}");
        }
    }
    let mut rude = agent.connect_raw();
    rude.next();
    rude.raw(&frame(2, 0, 1, status)).unwrap();
    assert!(rude.try_next().is_none(), "a request before the hello");
    let mut noise = agent.connect_raw();
    let _ = noise.raw(&[0xa5; 100_000]);
    while noise.try_next().is_some() {}
    assert_eq!(bystander.call(&Request::Stat { path: "/".into() }).body(), stat_root(&agent));
    bystander.cancel(call);
    assert!(bystander.finish(call).exec().cancelled);
}

fn stat_root(agent: &Agent) -> Body {
    agent.connect().call(&Request::Stat { path: "/".into() }).body()
}

#[test]
fn unknown_requests_are_answered() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for (call, text, code) in [
        (1, r#"{"op":"fly","to":"the moon"}"#, Code::Unsupported),
        (2, r#"{"op":"read"}"#, Code::BadRequest),
        (3, r#"{"op":"read","path":7}"#, Code::BadRequest),
        (4, "[]", Code::BadRequest),
    ] {
        client.send(Kind::Request, Channel::Input, call, text.as_bytes());
        assert_eq!(client.finish(call).error(), code, "{text}");
    }
    // What comes too late for its call is no fault.
    client.data(1, b"late");
    client.eof(1);
    client.cancel(1);
    client.grant(1, 10);
    client.call(&Request::Note { line: "fine".into() });
}

#[test]
fn one_stalled_call_does_not_stop_another() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        client.granting = false;
        let stalled: Vec<u32> = (0..4).map(|_| client.begin(&Request::Exec(sh("yes")))).collect();
        let mut seen = [0; 4];
        while seen.iter().sum::<usize>() < 4 * WINDOW as usize {
            let got = client.next();
            let at = stalled.iter().position(|c| *c == got.call).unwrap();
            seen[at] += if got.kind == Kind::Data { got.payload.len() } else { 0 };
        }
        assert_eq!(seen, [WINDOW as usize; 4]);
        for _ in 0..20 {
            assert_eq!(client.sh("echo through").out(), "through\n");
        }
        for call in stalled {
            client.cancel(call);
            assert!(client.finish(call).exec().cancelled);
        }
    }
}

#[test]
fn a_connection_that_does_not_read_stops_only_its_own_calls() {
    let agent = Agent::start();
    let mut deaf = agent.connect();
    for _ in 0..8 {
        let call = deaf.begin(&Request::Exec(sh("yes")));
        deaf.grant(call, u32::MAX);
    }
    let mut client = agent.connect();
    let before = agent.resident();
    for _ in 0..20 {
        assert_eq!(client.sh("echo through").out(), "through\n");
    }
    assert!(agent.resident() < before + 4096);
    assert!(deaf.readable(Duration::from_secs(5)));
    drop(deaf);
    // Without a reader they run on, into their rings.
    assert_eq!(execs(&mut client).iter().filter(|e| e.running).count(), 8);
    wait_for("memory stays bounded", || agent.resident() < before + 8 * 1024);
}

#[test]
fn a_lost_connection_keeps_its_commands() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let wait = "while [ ! -e go ]; do sleep 0.01; done; ";
        let long = sh(&format!("{wait} head -c 10000000 /dev/zero; echo $? > survived; exit 4"));
        let short = ExecSpec { timeout_ms: Some(500), ..sh("sleep 1000") };
        client.begin(&Request::Exec(long.clone()));
        client.begin(&Request::Exec(short.clone()));
        client.next();
        client.next();
        drop(client);
        let mut client = agent.connect();
        let info = |client: &mut Client, id: &str| {
            execs(client).into_iter().find(|e| e.exec_id == id).unwrap()
        };
        assert!(info(&mut client, &long.exec_id).running);
        let again = client.call(&Request::Exec(long.clone()));
        assert_eq!(again.error(), Code::Conflict);
        wait_for("its own deadline ends it", || !info(&mut client, &short.exec_id).running);
        let done = info(&mut client, &short.exec_id).done.unwrap();
        assert!(done.timed_out && done.exit_code == 124);
        client.write("go", None, b"").done();
        wait_for("it ends", || !info(&mut client, &long.exec_id).running);
        assert_eq!(info(&mut client, &long.exec_id).done.unwrap().exit_code, 4);
        let survived = std::fs::read_to_string(agent.path("workspace/survived")).unwrap();
        assert_eq!(survived, "0\n", "nobody broke its pipe");
        assert_eq!(client.call(&Request::Exec(long)).exec().exit_code, 4, "the id is free again");
    }
}

#[test]
fn only_the_newest_ended_commands_are_remembered() {
    let agent = Agent::start();
    let specs: Vec<ExecSpec> =
        (0..80).map(|_| sh("while [ ! -e go ]; do sleep 0.05; done")).collect();
    let mut client = agent.connect();
    for spec in &specs {
        client.begin(&Request::Exec(spec.clone()));
    }
    for _ in 0..80 {
        client.next();
    }
    drop(client);
    let mut client = agent.connect();
    client.write("go", None, b"").done();
    wait_for("all end", || execs(&mut client).iter().all(|e| !e.running));
    assert_eq!(execs(&mut client).len(), 64);
}

#[test]
fn connections_are_bounded() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let agent = Agent::with(Setup { limits, ..Setup::default() });
    let first = agent.connect();
    let _second = agent.connect();
    assert!(agent.connect_raw().try_next().is_none());
    drop(first);
    wait_for("a place is free", || agent.connect_raw().try_next().is_some());
}

#[test]
fn calls_on_a_connection_are_bounded() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let calls: Vec<u32> = (0..1024)
        .map(|n| client.begin(&Request::Write { path: format!("w{n}"), mode: None }))
        .collect();
    assert_eq!(client.call(&Request::Status).error(), Code::NoResources);
    for call in calls {
        client.cancel(call);
        assert!(client.finish(call).end.is_some());
    }
    assert!(std::fs::read_dir(agent.path("workspace")).unwrap().next().is_none());
}

#[test]
fn an_end_that_comes_with_the_last_words_is_noticed() {
    let agent = Agent::start();
    agent.connect().write("f", None, b"old").done();
    // Both are there when the agent looks: one edge for all of it.
    for _ in 0..50 {
        let mut client = agent.connect();
        let call = client.begin(&Request::Write { path: "f".into(), mode: None });
        client.data(call, &[b'n'; 1000]);
        drop(client);
    }
    wait_for("the hidden files are gone", || {
        std::fs::read_dir(agent.path("workspace")).unwrap().count() == 1
    });
}
