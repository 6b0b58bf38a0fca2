//! Many detached commands over many servers: every byte is received, or named in a gap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{Running, System, wait_for};
use tokio::time::Instant;

use super::{SOON, config, lines};

/// Each line has so many bytes: what a command says at any offset can be told without keeping it.
const LINE: u64 = 14;
/// Requests at once, as a few impatient clients would send them.
const AT_ONCE: usize = 16;

/// How many of what.
struct Numbers {
    sandboxes: usize,
    /// In all.
    commands: usize,
    restarts: usize,
    /// Between two outbursts of a command.
    pause: &'static str,
    /// Every so many commands one says more at once than a sandbox holds for long.
    loud: usize,
}

/// Writes numbered lines until it is told to stop, and then how many there were into a file.
fn script(name: usize, numbers: &Numbers) -> String {
    let burst = if name.is_multiple_of(numbers.loud) { 9000 } else { 3 };
    format!(
        "i=0; while [ ! -e stop ]; do n=0; \
         while [ $n -lt {burst} ]; do printf '%04d-%08d\\n' {name} $i; i=$((i+1)); n=$((n+1)); done; \
         sleep {}; done; echo $i > count.{name}",
        numbers.pause
    )
}

/// One command, as somebody sees it who comes back now and then.
struct Job {
    name: usize,
    sandbox: String,
    exec: String,
    offset: u64,
    received: u64,
    lost: u64,
}

impl Job {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/sandboxes/{}/execs/{}{rest}", self.sandbox, self.exec)
    }

    /// Fetches what is new; an error if nothing is, or the server cannot be asked.
    async fn fetch(&mut self, server: &Running) -> Result<(), String> {
        let path = self.path(&format!("/output?offset={}", self.offset));
        let reply = server.call("GET", &path, &[], &Value::Null).await?;
        if reply.status != 200 {
            return Err(reply.text());
        }
        let before = self.offset;
        for line in lines(&reply) {
            match line["stream"].as_str() {
                Some("exit") => {}
                Some("gap") => {
                    let lost = line["lost"].as_u64().unwrap();
                    assert!(lost > 0, "how much is missing of a living command is known");
                    self.lost += lost;
                    self.offset += lost;
                }
                Some("stdout") => {
                    assert_eq!(line["offset"], self.offset, "{line}");
                    self.take(line["data"].as_str().unwrap());
                }
                _ => panic!("{line}"),
            }
        }
        if self.offset > before { Ok(()) } else { Err("nothing new".to_owned()) }
    }

    /// Every byte is the one that belongs there.
    fn take(&mut self, data: &str) {
        let first = self.offset / LINE;
        let skip = usize::try_from(self.offset % LINE).unwrap();
        let count = (skip + data.len()).div_ceil(usize::try_from(LINE).unwrap());
        let wanted: String =
            (first..).take(count).map(|n| format!("{:04}-{n:08}\n", self.name)).collect();
        assert_eq!(data, &wanted[skip..skip + data.len()], "command {}", self.name);
        self.offset += data.len() as u64;
        self.received += data.len() as u64;
    }
}

/// None of the servers has anything to complain of.
fn complaints(server: &Running) {
    let log = server.log();
    let loud = log.lines().filter(|l| l.contains("\"WARN\"") || l.contains("\"ERROR\""));
    assert_eq!(loud.collect::<Vec<_>>(), [""; 0]);
}

/// A call that has to succeed.
async fn good(server: &Running, method: &str, path: &str, body: Value) -> Value {
    let reply = server.call(method, path, &[], &body).await.unwrap();
    assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text());
    reply.json().unwrap()
}

/// Something done to all, a few at a time.
async fn with_all<T>(all: impl IntoIterator<Item = T>, work: impl AsyncFn(T)) {
    stream::iter(all).for_each_concurrent(AT_ONCE, |one| work(one)).await;
}

async fn all_accounted_for(numbers: Numbers) {
    let mut system = System::new(config("native"));
    let mut server = system.start().await;
    let began = Instant::now();
    let mut jobs = started(&server, &numbers).await;
    println!("{} commands run after {:?}", jobs.len(), began.elapsed());
    for restart in 0..numbers.restarts {
        with_all(&mut jobs, async |job| {
            let what = format!("news of command {}", job.name);
            wait_for(&what, SOON, async || job.fetch(&server).await).await;
        })
        .await;
        println!("all heard of after {:?}", began.elapsed());
        complaints(&server);
        if restart % 3 == 2 {
            assert!(server.stop().await.success());
        } else {
            server.kill().await;
        }
        server = system.start().await;
        println!("restart {restart} after {:?}", began.elapsed());
    }
    let sandboxes: BTreeMap<String, ()> = jobs.iter().map(|j| (j.sandbox.clone(), ())).collect();
    with_all(sandboxes.keys(), async |sandbox| {
        let path = format!("/api/v1/sandboxes/{sandbox}/exec");
        good(&server, "POST", &path, json!({ "command": "touch stop" })).await;
    })
    .await;
    let missing = AtomicU64::new(0);
    with_all(&mut jobs, async |job| {
        let ended = good(&server, "GET", &job.path("/wait?timeout=2m"), Value::Null).await;
        assert_eq!(ended["exit_code"], 0, "{ended}");
        while job.fetch(&server).await.is_ok() {}
        let path = format!("/api/v1/sandboxes/{}/exec", job.sandbox);
        let count = json!({ "command": format!("cat count.{}", job.name) });
        let said = good(&server, "POST", &path, count).await;
        let count: u64 = said["stdout"].as_str().unwrap().trim().parse().unwrap();
        if job.offset != count * LINE || job.received + job.lost != job.offset {
            println!("command {}: {} of {}", job.name, job.offset, count * LINE);
            missing.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let sum = |of: fn(&Job) -> u64| jobs.iter().map(of).sum::<u64>();
    println!(
        "after {:?}: {} bytes received, {} named in gaps, of {} commands",
        began.elapsed(),
        sum(|job| job.received),
        sum(|job| job.lost),
        jobs.len()
    );
    assert_eq!(missing.into_inner(), 0, "commands whose output is not all accounted for");
    with_all(sandboxes.keys(), async |sandbox| {
        good(&server, "DELETE", &format!("/api/v1/sandboxes/{sandbox}"), Value::Null).await;
    })
    .await;
    complaints(&server);
    assert!(server.stop().await.success());
    assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
}

/// The sandboxes, and the commands in them, one in each by turns.
async fn started(server: &Running, numbers: &Numbers) -> Vec<Job> {
    let made = stream::iter(0..numbers.sandboxes).map(async |_| {
        // Long enough, whatever the machine does beside.
        let made = good(server, "POST", "/api/v1/sandboxes", json!({ "ttl": "3h" })).await;
        made["id"].as_str().unwrap().to_owned()
    });
    let sandboxes: Vec<String> = made.buffered(AT_ONCE).collect().await;
    let jobs = stream::iter(0..numbers.commands).map(async |name| {
        let sandbox = sandboxes[name % sandboxes.len()].clone();
        let body = json!({ "command": script(name, numbers), "detach": true });
        let said = good(server, "POST", &format!("/api/v1/sandboxes/{sandbox}/exec"), body).await;
        let exec = said["exec_id"].as_str().unwrap().to_owned();
        Job { name, sandbox, exec, offset: 0, received: 0, lost: 0 }
    });
    jobs.buffered(AT_ONCE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_commands_every_byte_is_accounted_for() {
    let (sandboxes, commands, restarts) = (3, 24, 3);
    all_accounted_for(Numbers { sandboxes, commands, restarts, pause: "0.2", loud: 4 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/soak runs it"]
#[allow(clippy::disallowed_methods)] // a test's own switches
async fn of_a_thousand_commands_every_byte_is_accounted_for() {
    let number = |name: &str, usual: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    all_accounted_for(Numbers {
        sandboxes: number("SANDBOXES", 100),
        commands: number("COMMANDS", 1000),
        restarts: number("RESTARTS", 10),
        pause: "2",
        loud: 10,
    })
    .await;
}
