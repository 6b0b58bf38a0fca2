//! Known faults that only show from the outside to the inside: each test bears the number of one,
//! and runs on every provider.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Running, System, wait_for};

/// What a command's end may take beyond its timeout, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

struct Bed {
    system: System,
    server: Running,
    sandbox: String,
}

impl Bed {
    async fn make(provider: &str) -> Self {
        let mock = provider == "mock";
        let mut system = System::new(json!({
            "providers": { "default": provider, "mock": { "enabled": mock },
                           "native": { "enabled": !mock } },
            "defaults": { "memory_mb": 128 },
        }));
        let server = system.start().await;
        let made = server.call("POST", "/api/v1/sandboxes", &[], &json!({})).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text());
        let sandbox = made.json().unwrap()["id"].as_str().unwrap().to_owned();
        Self { system, server, sandbox }
    }

    async fn exec(&self, body: Value) -> (u16, String) {
        let path = format!("/api/v1/sandboxes/{}/exec", self.sandbox);
        let reply = self.server.call("POST", &path, &[], &body).await.unwrap();
        (reply.status, reply.text())
    }

    async fn result(&self, body: Value) -> Value {
        let (status, text) = self.exec(body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// How many processes inside have this word in their command line.
    async fn running(&self, word: &str) -> u64 {
        let script = format!(
            "n=0; for p in /proc/[0-9]*; do \
             case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in \
             'sleep {word} '*) n=$((n+1));; esac; done; echo $n"
        );
        let told = self.result(json!({ "command": script })).await;
        told["stdout"].as_str().unwrap().trim().parse().unwrap()
    }

    async fn close(self) {
        let path = format!("/api/v1/sandboxes/{}", self.sandbox);
        let gone = self.server.call("DELETE", &path, &[], &Value::Null).await.unwrap();
        assert_eq!(gone.status, 200, "{}", gone.text());
        assert!(self.server.stop().await.success());
        wait_for("nothing to be left over", SOON, async || match self.system.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(left.iter().map(|l| format!("{l}\n")).collect::<String>()),
        })
        .await;
    }
}

/// A deadline ends the command and all that descends from it, and the answer comes then, whoever
/// holds the pipes.
async fn deadlines_end_commands(provider: &str) {
    let bed = Bed::make(provider).await;
    // A number that no other process on this machine sleeps for: on mock all of them are seen, those
    // of the same test on native among them.
    let word = format!("86{:07}.{}", std::process::id(), provider.len());
    // A child that holds the pipes, one in a session of its own, one whose parent is gone.
    let script = format!(
        "echo begun; sleep {word} & setsid sleep {word} & (setsid sleep {word} &); sleep {word}"
    );
    for stream in [false, true] {
        // What is done before is given time: the count below must see them.
        let body = json!({ "command": script, "timeout": "3s", "stream": stream });
        let asked = bed.exec(body);
        let looked =
            wait_for("the command's processes", SOON, async || match bed.running(&word).await {
                4 => Ok(()),
                n => Err(format!("{n} run")),
            });
        let began = began();
        let ((status, text), ()) = tokio::join!(asked, looked);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3) + SOON, "the answer took {took:?}");
        if stream {
            assert_eq!(status, 200);
            let last = text.lines().rfind(|l| !l.is_empty()).unwrap();
            let last: Value = serde_json::from_str(last).unwrap();
            assert_eq!((&last["exit_code"], &last["timed_out"]), (&json!(124), &json!(true)));
            assert!(text.contains("begun"), "{text}");
        } else {
            assert_eq!(status, 408, "{text}");
        }
        wait_for("its processes to end", SOON, async || match bed.running(&word).await {
            0 => Ok(()),
            n => Err(format!("{n} still run")),
        })
        .await;
    }
    bed.close().await;
}

#[allow(clippy::disallowed_methods)] // a test measures the product from outside
fn began() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn bug_6_a_deadline_ends_all_of_a_command_on_mock() {
    deadlines_end_commands("mock").await;
}

#[tokio::test]
async fn bug_6_a_deadline_ends_all_of_a_command_on_native() {
    deadlines_end_commands("native").await;
}

/// The same end has the same code on every provider, and an unknown program is no error of ours.
async fn ends_have_one_code(provider: &str) {
    let bed = Bed::make(provider).await;
    for (script, code) in [
        ("exit 3", 3),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("no-such-program", 127),
        ("touch plain && ./plain", 126),
    ] {
        let told = bed.result(json!({ "command": script })).await;
        assert_eq!(told["exit_code"], code, "{script}: {told}");
    }
    for (argv, code) in [(["no-such-program", "x"], 127), (["/", "x"], 126)] {
        let body = json!({ "mode": "argv", "command": argv[0], "args": [argv[1]] });
        let told = bed.result(body).await;
        assert_eq!(told["exit_code"], code, "{argv:?}: {told}");
        assert_eq!(told["stdout"], "", "{told}");
        assert!(!told["stderr"].as_str().unwrap().is_empty(), "the reason goes to stderr: {told}");
    }
    bed.close().await;
}

#[tokio::test]
async fn bug_56_ends_have_one_code_on_mock() {
    ends_have_one_code("mock").await;
}

#[tokio::test]
async fn bug_56_ends_have_one_code_on_native() {
    ends_have_one_code("native").await;
}
