//! Runs a transcript from its first step to its last.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::{Reply, Running, System, exchange, wait_for};

use super::compare::Comparison;
use super::transcript::{Scenario, Step, Transcript, load};
use super::vars::Vars;
use super::{by_hand, expect, waiting};

/// Replays a transcript on a provider; `mock` in its answers is read as that one.
pub async fn replay(file: &str, provider: &str) {
    let Transcript { mut config, scenarios } = load(file);
    config["providers"]["default"] = json!(provider);
    let mut system = System::new(config);
    if provider == "native" {
        import_busybox(&system);
    }
    let server = system.start().await;
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        if let Some(part) = waiting::waits(file, &scenario.name) {
            println!("waits for {part}: {file} / {}", scenario.name);
            continue;
        }
        wrong.extend(run(file, scenario, provider, &server).await);
    }
    let log = server.log();
    let status = server.stop().await;
    wrong.extend(log.lines().filter(|l| l.contains("ERROR")).map(|l| format!("logged: {l}")));
    if !status.success() {
        wrong.push(format!("the server ended with {status}"));
    }
    let clean = async || match system.leftovers() {
        left if left.is_empty() => Ok(()),
        left => Err(left.iter().map(|l| format!("{l}\n")).collect::<String>()),
    };
    wait_for("nothing to be left over", Duration::from_secs(10), clean).await;
    assert!(wrong.is_empty(), "{file} on {provider}:\n{}\n\nits log:\n{log}", wrong.join("\n"));
}

async fn run(file: &str, scenario: &Scenario, provider: &str, server: &Running) -> Vec<String> {
    let mut vars = Vars::default();
    let mut wrong = Vec::new();
    for step in &scenario.steps {
        vars.expect(step.save.keys().cloned());
        let place = format!("{file} / {} / {}", scenario.name, step.name);
        let held = match send(step, &vars, server).await {
            Ok(reply) => {
                let held = judge(file, scenario, step, &reply, &vars, provider);
                save(step, &reply, &mut vars);
                held
            }
            Err(e) => Err(e),
        };
        if let Err(e) = held {
            wrong.push(format!("{place}: {e}"));
        }
    }
    wrong
}

fn judge(
    file: &str,
    scenario: &Scenario,
    step: &Step,
    reply: &Reply,
    vars: &Vars,
    provider: &str,
) -> Result<(), String> {
    match &step.ours {
        Some(ours) if ours.skip => {
            by_hand::check(file, &scenario.name, &step.name, reply, provider)
                .map_err(|e| format!("{e} (expected: {})", ours.why))
        }
        Some(_) | None => {
            let c = Comparison { vars, provider, exact_keys: step.exact_keys };
            expect::check(step, reply, &c)?;
            by_hand::also(file, &scenario.name, &step.name, reply)
        }
    }
}

async fn send(step: &Step, vars: &Vars, server: &Running) -> Result<Reply, String> {
    let request = &step.request;
    let headers: Vec<_> = request.headers.iter().map(|(n, v)| (n.clone(), vars.fill(v))).collect();
    let body = match (&request.json, &request.raw) {
        (Some(json), _) => vars.fill_json(json).to_string(),
        (None, Some(raw)) => vars.fill(raw),
        (None, None) => String::new(),
    };
    let path = vars.fill(&request.path);
    exchange(server.addr(), &request.method, &path, &headers, body.as_bytes()).await
}

fn save(step: &Step, reply: &Reply, vars: &mut Vars) {
    for (name, key) in &step.save {
        if let Some(value) = reply.json().ok().and_then(|j| j[key].as_str().map(str::to_owned)) {
            vars.save(name, value);
        }
    }
}

/// What the transcripts ask for by name, `alpine:latest`, made of this machine's busybox.
fn import_busybox(system: &System) {
    let root = TempDir::new().unwrap();
    testkit::busybox_rootfs(root.path()).unwrap();
    let path = root.path().to_str().expect("temporary folders have plain names");
    let import = ["image", "import", path, "--tag", "alpine:latest"];
    let done = system.command(&import).output().expect("the binary can be run");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "image import ended with {}: {words}", done.status);
}
