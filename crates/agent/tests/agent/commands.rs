//! Running commands.

use std::time::Duration;

use protocol::agent::{
    AgentErrorCode, Body, Channel, Event, ExecSpec, Kind, Limits, Request, WINDOW,
};

use crate::harness::*;

#[test]
fn output_streams_and_exit_codes_arrive() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let result = client.sh("printf out; printf err >&2; exit 7");
        assert_eq!((result.out().as_str(), result.err().as_str()), ("out", "err"));
        assert_eq!(result.exec().exit_code, 7);
        assert!(matches!(&result.events[..], [Event::Started { .. }]), "{:?}", result.events);
        assert_eq!(client.call(&Request::Exec(argv(&["true"]))).exec().exit_code, 0);
        assert_eq!(client.sh("kill -TERM $$").exec().exit_code, 128 + 15);
        let killed = client.sh("kill -KILL $$").exec();
        assert_eq!((killed.exit_code, killed.oom_killed), (137, false));
    }
}

#[test]
fn programs_that_cannot_run_are_told_in_words() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        std::fs::write(agent.path("workspace/plain"), "no program").unwrap();
        for (program, code, words) in [
            ("no-such-program", 127, "sh: no-such-program: not found\n"),
            ("./none", 127, "sh: ./none: not found\n"),
            ("./plain", 126, "sh: ./plain: Permission denied\n"),
            ("/etc", 126, "sh: /etc: Permission denied\n"),
        ] {
            let result = client.call(&Request::Exec(argv(&[program])));
            assert_eq!((result.exec().exit_code, result.err().as_str()), (code, words));
        }
        client.call(&Request::Chmod { path: "plain".into(), mode: 0o755 }).done();
        let result = client.call(&Request::Exec(argv(&["./plain"])));
        assert_eq!(result.exec().exit_code, 126);
        assert!(result.err().contains("Exec format error"), "{}", result.err());
    }
}

#[test]
fn environment_and_directory_are_what_was_asked() {
    let agent = Agent::start();
    let mut client = agent.connect();
    std::fs::create_dir(agent.path("workspace/sub")).unwrap();
    std::fs::write(agent.path("workspace/file"), "").unwrap();
    let spec = ExecSpec {
        env: vec![("OWN".into(), "a b".into()), ("HOME".into(), "/x".into())],
        ..argv(&["env"])
    };
    let result = client.call(&Request::Exec(spec));
    let mut lines: Vec<String> = result.out().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["BASE=from the sandbox", "HOME=/x", "OWN=a b", "PATH=/usr/local/bin:/usr/bin:/bin"]
    );
    let at = |cwd: Option<&str>| ExecSpec { cwd: cwd.map(str::to_owned), ..sh("pwd -P") };
    for (cwd, end) in [
        (None, "/workspace"),
        (Some("sub"), "/workspace/sub"),
        (Some("/tmp"), "/tmp"),
        (Some("../../.."), ""),
    ] {
        let result = client.call(&Request::Exec(at(cwd)));
        let expected = format!("{}{end}\n", agent.root().canonicalize().unwrap().display());
        assert_eq!(result.out(), expected);
    }
    let code = |client: &mut Client, cwd| client.call(&Request::Exec(at(Some(cwd)))).error();
    assert_eq!(code(&mut client, "missing"), AgentErrorCode::FileNotFound);
    assert_eq!(code(&mut client, "file"), AgentErrorCode::NotADirectory);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let bad = [
        ExecSpec { argv: vec![], ..sh("") },
        ExecSpec { exec_id: "../x".into(), ..sh("") },
        ExecSpec { exec_id: String::new(), ..sh("") },
        ExecSpec { argv: vec!["a\0b".into()], ..sh("") },
        ExecSpec { env: vec![("A=B".into(), "c".into())], ..sh("") },
        ExecSpec { env: vec![("A".into(), "\0".into())], ..sh("") },
    ];
    for spec in bad {
        assert_eq!(client.call(&Request::Exec(spec)).error(), AgentErrorCode::BadRequest);
    }
    let user = ExecSpec { user: Some("nobody".into()), ..sh("") };
    assert_eq!(client.call(&Request::Exec(user)).error(), AgentErrorCode::NoSuchUser);
}

#[test]
fn commands_inherit_nothing() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let result = client.sh("cd /proc/$$; ls fd; grep -E 'Sig(Blk|Ign)' status; \
             cut -d' ' -f5,6 stat; echo $$; umask; readlink fd/0");
        let out = result.out();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..3], ["0", "1", "2"], "{out}");
        assert!(lines[3].ends_with("0000000000000000"), "{out}");
        assert!(lines[4].ends_with("0000000000000000"), "{out}");
        let pid = lines[6];
        assert_eq!(lines[5], format!("{pid} {pid}"), "a session and a group of its own");
        assert_eq!(lines[7..], ["0022", "/dev/null"]);
    }
}

#[test]
fn oom_scores_are_raised() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let script = "until [ $(cat /proc/$$/oom_score_adj) = 300 ]; do :; done; echo raised";
        let spec = ExecSpec { timeout_ms: Some(20_000), ..sh(script) };
        assert_eq!(client.call(&Request::Exec(spec)).out(), "raised\n", "{hold:?}");
        let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", agent.pid)).unwrap();
        assert_ne!(own.trim(), "300");
    }
}

#[test]
fn input_reaches_the_command_and_ends() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let spec = ExecSpec { stdin: true, ..argv(&["sha256sum"]) };
        let call = client.begin(&Request::Exec(spec));
        // More than a window: needs the agent's credit.
        let piece = vec![b'x'; 64 * 1024];
        let mut left: i64 = i64::from(WINDOW);
        let mut result = Result::default();
        for _ in 0..64 {
            while left < piece.len() as i64 {
                let got = client.next();
                if got.kind == Kind::Credit {
                    left += i64::from(u32::from_le_bytes(got.payload[..].try_into().unwrap()));
                } else {
                    client.take(&mut result, got);
                }
            }
            client.data(call, &piece);
            left -= piece.len() as i64;
        }
        client.eof(call);
        let result = client.finish(call);
        // printf 'x%.0s' {1..4194304} | sha256sum
        assert_eq!(result.out.len(), 68, "{}", result.out());
        let again = client.sh("head -c 4194304 /dev/zero | tr '\\0' x | sha256sum");
        assert_eq!(result.out(), again.out());
    }
}

#[test]
fn input_that_nobody_reads_is_thrown_away() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let call = client.begin(&Request::Exec(ExecSpec {
        stdin: true,
        ..sh("exec <&-; cat /proc/self/fd/0; exit 3")
    }));
    for _ in 0..4 {
        client.data(call, &[0; 64 * 1024]);
    }
    assert_eq!(client.finish(call).exec().exit_code, 3);
}

#[test]
fn a_timeout_kills_all_descendants_and_nothing_else() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        // A neighbour, which has to survive.
        let neighbour = client.begin(&Request::Exec(sh(
            "(setsid sh -c 'echo $$ > neighbour; exec sleep 1000' &) ; sleep 1000",
        )));
        let mut neighbour_result = Result::default();
        let got = client.next();
        client.take(&mut neighbour_result, got);
        let neighbour_pid = pid_in(&agent.path("workspace/neighbour"));
        // Double-forked, in a session of its own, without the pipes.
        let script = "echo before; (setsid sh -c 'echo $$ > hidden; exec sleep 1000' \
                      </dev/null >/dev/null 2>&1 &); sleep 1000";
        let spec = ExecSpec { timeout_ms: Some(400), ..sh(script) };
        let call = client.begin(&Request::Exec(spec));
        let hidden = pid_in(&agent.path("workspace/hidden"));
        assert!(alive(hidden));
        let result = client.finish(call);
        let done = result.exec();
        assert_eq!((done.exit_code, done.timed_out, done.oom_killed), (124, true, false));
        assert_eq!((result.out().as_str(), result.err().as_str()), ("before\n", "exec timeout\n"));
        wait_for("the hidden one is gone", || !alive(hidden));
        assert!(alive(neighbour_pid), "{hold:?}");
        client.cancel(neighbour);
        let done = client.finish(neighbour).exec();
        assert!(done.cancelled && !done.timed_out);
        wait_for("the neighbour is gone", || !alive(neighbour_pid));
    }
}

#[test]
fn a_fork_bomb_is_cancelled() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        // Bounded, since this runs on the host: each generation dies, and forks the next before.
        let script = "f() { [ $1 -gt 2000 ] && exit; (f $(($1+1)) &) ; exit; }; (f 0 &); \
                      (f 0 &); echo on; sleep 1000";
        let call = client.begin(&Request::Exec(sh(script)));
        let mut result = Result::default();
        while result.out.is_empty() {
            let got = client.next();
            client.take(&mut result, got);
        }
        client.cancel(call);
        assert!(client.finish(call).exec().cancelled);
        assert_eq!(client.sh("echo alive").out(), "alive\n");
    }
}

#[test]
fn a_child_that_holds_the_pipes_delays_the_end_a_little_and_lives_on() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let script = "(echo $$ >/dev/null; sh -c 'echo $$ > pid; while :; do echo chatter; sleep 0.05; done') & \
                      while [ ! -s pid ]; do :; done; echo done";
        let result = client.sh(script);
        assert!(result.out().contains("done\n"));
        let pid = pid_in(&agent.path("workspace/pid"));
        // What it writes into the pipe later must not kill it.
        let before = now();
        wait_for("a few more words", || now() > before + Duration::from_millis(300));
        assert!(alive(pid), "{hold:?}");
        let started = now();
        let result = client.sh("sleep 1000 & echo quick");
        let took = now() - started;
        assert_eq!(result.out(), "quick\n");
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn a_slow_client_gets_every_byte_and_memory_stays_flat() {
    const SIZE: usize = 100 << 20;
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        client.granting = false;
        client.sh("true");
        let before = agent.resident();
        let call = client.begin(&Request::Exec(sh(&format!("head -c {SIZE} /dev/zero"))));
        let (mut got, mut peak, mut end) = (0, 0, None);
        while end.is_none() {
            let frame = client.next();
            match frame.kind {
                Kind::Data => {
                    got += frame.payload.len();
                    client.grant(call, u32::try_from(frame.payload.len()).unwrap());
                    if got % (8 << 20) < frame.payload.len() {
                        peak = peak.max(agent.resident());
                    }
                }
                Kind::End => end = Some(frame),
                _ => {}
            }
        }
        assert_eq!(got, SIZE);
        assert!(peak < before + 1536, "{before} KiB grew to {peak} KiB");
        wait_for("memory is given back", || agent.resident() < before + 256);
    }
}

#[test]
fn what_was_written_before_the_end_arrives_whenever_it_is_read() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        client.granting = false;
        // One window, and then what fits into the pipe; a child holds the pipe.
        let size = WINDOW as usize + 60_000;
        let script = format!("head -c {size} /dev/zero; (sleep 2 &); echo $$ > gone");
        let call = client.begin(&Request::Exec(sh(&script)));
        let pid = pid_in(&agent.path("workspace/gone"));
        wait_for("the command has exited", || !alive(pid));
        let exited = now();
        wait_for("the grace is over", || now() > exited + Duration::from_millis(250));
        let mut result = Result::default();
        while result.out.len() < WINDOW as usize {
            let got = client.next();
            client.take(&mut result, got);
        }
        assert!(!client.readable(Duration::from_millis(50)), "no end before all is delivered");
        client.grant(call, 1 << 20);
        let rest = client.finish(call);
        assert_eq!(result.out.len() + rest.out.len(), size);
        assert_eq!(rest.exec().exit_code, 0);
    }
}

#[test]
fn signals_reach_the_whole_group() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        let spec = sh("trap 'echo got; exit 9' USR1; sleep 1000 & echo ready; wait");
        let id = spec.exec_id.clone();
        let call = client.begin(&Request::Exec(spec));
        let mut result = Result::default();
        while result.out() != "ready\n" {
            let got = client.next();
            client.take(&mut result, got);
        }
        let signal = |exec_id: &str, signal: &str| Request::Signal {
            exec_id: exec_id.into(),
            signal: signal.into(),
        };
        let mut other = agent.connect();
        assert_eq!(other.call(&signal(&id, "NOPE")).error(), AgentErrorCode::BadRequest);
        assert_eq!(other.call(&signal("nobody", "TERM")).error(), AgentErrorCode::NoSuchExec);
        other.call(&signal(&id, "SIGUSR1")).done();
        let result = client.finish(call);
        assert_eq!((result.exec().exit_code, result.out().as_str()), (9, "got\n"));
    }
}

#[test]
fn limits_on_commands_hold() {
    let limits = Limits { max_execs: 2, ..Limits::default() };
    let agent = Agent::with(Setup { limits, ..Setup::default() });
    let mut client = agent.connect();
    let first = sh("sleep 1000");
    let calls = [
        client.begin(&Request::Exec(first.clone())),
        client.begin(&Request::Exec(sh("sleep 1000"))),
    ];
    let mut other = agent.connect();
    wait_for("both run", || match other.call(&Request::Status).body() {
        Body::Status(status) => status.running_execs == 2,
        other => panic!("{other:?}"),
    });
    assert_eq!(other.call(&Request::Exec(first)).error(), AgentErrorCode::Conflict);
    assert_eq!(other.call(&Request::Exec(sh("true"))).error(), AgentErrorCode::NoResources);
    for call in calls {
        client.cancel(call);
    }
    wait_for("room again", || {
        let result = other.call(&Request::Exec(sh("true")));
        matches!(result.end, Some(protocol::agent::End::Ok(_)))
    });
}

#[test]
fn a_killed_reaper_does_not_lose_its_command() {
    let agent = Agent::held(Hold::Reaper);
    let mut client = agent.connect();
    let script =
        "kill -KILL $PPID; while [ $(cut -d' ' -f4 /proc/$$/stat) != AGENT ]; do :; done; exit 5";
    let result = client.sh(&script.replace("AGENT", &agent.pid.to_string()));
    assert_eq!(result.exec().exit_code, 5, "{}", result.err());
    let spec = ExecSpec { timeout_ms: Some(300), ..sh("kill -KILL $PPID; sleep 1000") };
    let done = client.call(&Request::Exec(spec)).exec();
    assert!(done.timed_out);
}

#[test]
fn an_oom_kill_is_told_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    std::fs::write(&events, "low 0\noom 3\noom_kill 3\n").unwrap();
    let agent = Agent::with(Setup { oom_events: Some(events.clone()), ..Setup::default() });
    let mut client = agent.connect();
    assert!(!client.sh("kill -KILL $$").exec().oom_killed);
    let script =
        format!("printf 'low 0\\noom 4\\noom_kill 4\\n' > {}; kill -KILL $$", events.display());
    let done = client.sh(&script).exec();
    assert_eq!((done.exit_code, done.oom_killed), (137, true));
    assert!(!client.sh("kill -KILL $$").exec().oom_killed);
}

#[test]
fn many_commands_at_once_leave_nothing_behind() {
    for hold in holds() {
        let agent = Agent::held(hold);
        let mut client = agent.connect();
        client.sh("true");
        let files = agent.open_files();
        for _ in 0..10 {
            let calls: Vec<u32> =
                (0..20).map(|n| client.begin(&Request::Exec(sh(&format!("echo {n}"))))).collect();
            let mut left = calls.len();
            while left > 0 {
                let got = client.next();
                if got.kind == Kind::End {
                    left -= 1;
                } else if got.kind == Kind::Data {
                    assert_eq!(got.channel, Channel::Out);
                }
            }
        }
        wait_for("descriptors are closed", || agent.open_files() <= files);
        let pid = agent.pid;
        wait_for("no child is left", || {
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap_or_default()
                .is_empty()
        });
    }
}
