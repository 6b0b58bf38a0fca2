//! The history of what ran in a sandbox, across crashes and its end.

use serde_json::{Value, json};
use testkit::{Running, wait_for};

use super::{Bed, SOON};

async fn history(bed: &Bed, query: &str) -> Vec<Value> {
    let reply = bed.call("GET", &format!("/execs{query}"), Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().unwrap().as_array().unwrap().clone()
}

/// The record of a command, once it is as it should be.
async fn told(bed: &Bed, command: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait_for("the record to be as it should be", SOON, async || {
        let all = history(bed, "").await;
        let found = all.into_iter().find(|r| r["command"] == command).unwrap_or_default();
        last = found.clone();
        if wanted(&found) { Ok(()) } else { Err(format!("{command}: {found}")) }
    })
    .await;
    last
}

/// A stream that somebody reads until it breaks.
fn stream(server: &Running, bed: &Bed, command: &str) -> tokio::task::JoinHandle<()> {
    let (client, id) = (server.client(), bed.sandbox.clone());
    let request = client::api::ExecRequest {
        command: Some(command.to_owned()),
        ..client::api::ExecRequest::default()
    };
    tokio::spawn(async move {
        let Ok(mut lines) = client.exec_stream(&id, &request).await else { return };
        while let Ok(Some(_)) = lines.next().await {}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bug_50_the_history_survives_crashes_and_the_sandbox() {
    let mut bed = Bed::make("native").await;
    let ran = bed.exec(json!({ "command": "exit 3", "user": "nobody", "workdir": "/tmp" })).await;
    assert_eq!(ran.json().unwrap()["exit_code"], 3);
    let late = bed.exec(json!({ "command": "sleep 100", "timeout": "100ms" })).await;
    assert_eq!(late.status, 408);
    bed.exec(json!({ "command": "kill -TERM $$" })).await;
    let never = bed.exec(json!({ "command": "true", "user": "none-such" })).await;
    assert_eq!(never.status, 422);
    let all = history(&bed, "").await;
    let commands: Vec<_> = all.iter().map(|r| r["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["kill -TERM $$", "sleep 100", "exit 3"]);
    assert_eq!((&all[0]["exit_code"], &all[0]["signal"]), (&json!(143), &json!("TERM")));
    assert_eq!((&all[1]["exit_code"], &all[1]["timed_out"]), (&json!(124), &json!(true)));
    assert_eq!((&all[2]["exit_code"], &all[2]["user"]), (&json!(3), &json!("nobody")));
    assert!(all.iter().all(|r| r["state"] == "exited" && r["kind"] == "captured"), "{all:?}");

    // One whose caller leaves is cancelled; one can be signalled by anybody.
    let left = stream(&bed.server, &bed, "sleep 1000");
    told(&bed, "sleep 1000", |r| r["state"] == "running").await;
    left.abort();
    told(&bed, "sleep 1000", |r| r["state"] == "cancelled").await;
    let ended = stream(&bed.server, &bed, "sleep 1001");
    let record = told(&bed, "sleep 1001", |r| r["state"] == "running").await;
    assert_eq!(history(&bed, "?state=running").await, std::slice::from_ref(&record));
    let signal = format!("/execs/{}/signal", record["exec_id"].as_str().unwrap());
    assert_eq!(bed.call("POST", &signal, json!({ "signal": "INT" })).await.status, 200);
    told(&bed, "sleep 1001", |r| r["signal"] == "INT").await;
    ended.await.unwrap();

    // A server dies and another stops: what runs goes on, and its end is recorded.
    let word = "until [ -e /tmp/go ]; do sleep 0.1; done; exit 9";
    for crash in [true, false] {
        bed.exec(json!({ "command": "rm -f /tmp/go" })).await;
        let command = format!("{word} # {crash}");
        let broken = stream(&bed.server, &bed, &command);
        told(&bed, &command, |r| r["state"] == "running").await;
        if crash {
            bed.server.kill().await;
        } else {
            assert!(bed.server.stop().await.success());
        }
        broken.await.unwrap();
        bed.server = bed.system.start().await;
        let record = told(&bed, &command, |r| r["state"] == "running").await;
        bed.exec(json!({ "command": "touch /tmp/go" })).await;
        let record_then = told(&bed, &command, |r| r["state"] == "exited").await;
        assert_eq!(record_then["exit_code"], 9, "{record_then}");
        assert_eq!(record_then["started_at"], record["started_at"]);
    }

    let last = stream(&bed.server, &bed, "sleep 1002");
    told(&bed, "sleep 1002", |r| r["state"] == "running").await;
    let before = history(&bed, "").await.len();
    let ps = |args: &[&str]| {
        let url = bed.server.url();
        let words = ["--server", &url, "ps", &bed.sandbox];
        let words: Vec<&str> = words.into_iter().chain(args.iter().copied()).collect();
        let done = bed.system.command(&words).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let running = ps(&[]);
    assert!(running.contains("sleep 1002") && !running.contains("sleep 1001"), "{running}");
    assert_eq!(ps(&["--all"]).lines().count(), before + 1);
    assert_eq!(ps(&["--all", "--last", "2"]).lines().count(), 3);
    assert_eq!(bed.call("DELETE", "", Value::Null).await.status, 200);
    last.await.unwrap();
    bed.server.kill().await;
    bed.server = bed.system.start().await;
    let all = history(&bed, "").await;
    assert_eq!(all.len(), before);
    assert_eq!((&all[0]["state"], &all[0]["error"]), (&json!("lost"), &json!("destroyed")));
    assert!(bed.server.stop().await.success());
    assert!(bed.system.leftovers().is_empty(), "{:?}", bed.system.leftovers());
}
