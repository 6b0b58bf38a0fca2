//! The agent's own life: console, numbers, deadlines, its end.

use protocol::agent::{Body, Limits, Request};

use crate::harness::*;

fn logs(client: &mut Client, lines: u32) -> Vec<String> {
    match client.call(&Request::Logs { lines }).body() {
        Body::Lines { lines } => lines,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_console_tells_each_step() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let spec = argv(&["sh", "-c", "exit 3"]);
    let id = spec.exec_id.clone();
    client.call(&Request::Exec(spec));
    let odd = argv(&["no\nsuch\u{1b}[2Jprogram"]);
    let odd_id = odd.exec_id.clone();
    client.call(&Request::Exec(odd));
    client.call(&Request::Note { line: "from the server\n".into() }).done();
    assert_eq!(
        logs(&mut client, 100),
        [
            "agent started".to_owned(),
            format!("exec {id} started: sh"),
            format!("exec {id} exited: 3"),
            format!("exec {odd_id} started: no\\nsuch\\u{{1b}}[2Jprogram"),
            format!("exec {odd_id} exited: 127"),
            "from the server\\n".to_owned(),
        ]
    );
    assert_eq!(logs(&mut client, 1), ["from the server\\n"]);
    assert!(logs(&mut client, 0).is_empty());
}

#[test]
fn notes_cannot_fill_memory() {
    let limits = Limits { console_bytes: 20_000, ..Limits::default() };
    let agent = Agent::with(Setup { limits, ..Setup::default() });
    let mut client = agent.connect();
    let line = "\u{1}".repeat(10_000);
    for n in 0..500 {
        client.call(&Request::Note { line: line.clone() }).done();
        client.call(&Request::Note { line: n.to_string() }).done();
    }
    let lines = logs(&mut client, u32::MAX);
    assert_eq!(lines.last().unwrap(), "499");
    assert!(lines.iter().map(String::len).sum::<usize>() < 20_000);
    assert!(lines.iter().all(|l| l.len() < 1100));
}

#[test]
fn status_has_numbers() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let Body::Status(status) = client.call(&Request::Status).body() else { panic!() };
    assert!(status.disk_limit_bytes > status.disk_bytes && status.disk_bytes > 0);
    assert_eq!((status.running_execs, status.deadline_boot_nanos), (0, 0));
}

#[test]
fn a_deadline_ends_it_with_all_commands() {
    for hold in holds() {
        let deadline = u64::try_from(now().as_nanos()).unwrap() + 3_600_000_000_000;
        let mut agent = Agent::with(Setup { hold, deadline, ..Setup::default() });
        let mut client = agent.connect();
        let Body::Status(status) = client.call(&Request::Status).body() else { panic!() };
        assert_eq!(status.deadline_boot_nanos, deadline);
        client
            .call(&Request::Exec(sh("(setsid sh -c 'echo $$ > left; exec sleep 1000' &) ; true")));
        let left = pid_in(&agent.path("workspace/left"));
        client.begin(&Request::Exec(sh("echo $$ > pid; sleep 1000")));
        let pid = pid_in(&agent.path("workspace/pid"));
        let soon = u64::try_from(now().as_nanos()).unwrap() + 300_000_000;
        let started = now();
        agent.connect().call(&Request::Deadline { boot_nanos: soon }).done();
        assert_eq!(agent.ended(), 0);
        assert!((now() - started).as_millis() >= 290);
        assert!(!alive(pid) && !alive(left), "{hold:?}");
    }
}

#[test]
fn a_shutdown_is_answered_and_ends_it() {
    for hold in holds() {
        let mut agent = Agent::held(hold);
        let mut client = agent.connect();
        client
            .call(&Request::Exec(sh("(setsid sh -c 'echo $$ > left; exec sleep 1000' &) ; true")));
        let left = pid_in(&agent.path("workspace/left"));
        client.call(&Request::Shutdown).done();
        assert_eq!(agent.ended(), 0);
        assert!(!alive(left), "{hold:?}");
    }
}

#[test]
fn it_ends_with_what_it_is_tied_to() {
    let mut agent = Agent::start();
    let mut client = agent.connect();
    client.begin(&Request::Exec(sh("echo $$ > pid; sleep 1000")));
    let pid = pid_in(&agent.path("workspace/pid"));
    agent.untie();
    assert_eq!(agent.ended(), 0);
    assert!(!alive(pid));
}

#[test]
fn signals_do_not_end_it() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let script = format!(
        "for s in HUP INT QUIT TERM USR1 USR2 PIPE ALRM CHLD TSTP TTIN TTOU XCPU 34 64; do kill -$s {}; done",
        agent.pid
    );
    let result = client.call(&Request::Exec(argv(&["bash", "-c", &script])));
    assert_eq!(result.exec().exit_code, 0, "{}", result.err());
    assert_eq!(client.sh("echo alive").out(), "alive\n");
}

#[test]
fn an_idle_agent_is_small_and_waits() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.sh("true");
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid)).unwrap();
        let fields: Vec<String> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        (fields[11].clone(), fields[12].clone())
    };
    let (before, started) = (cpu(), now());
    wait_for("half a second", || (now() - started).as_millis() > 500);
    assert_eq!(cpu(), before, "an idle agent uses no processor");
}
