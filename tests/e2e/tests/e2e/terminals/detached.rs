//! Detached commands, over lost connections, killed servers and ended sandboxes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::{Running, exchange, wait_for};

use super::{Bed, SOON, lines, spawn};

/// Writes its name and a number, line by line, until it is told to stop.
fn writer(name: usize) -> String {
    format!(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); echo {name}-$i; \
         [ $((i % 7)) = 0 ] && echo {name}-err >&2; sleep 0.01; done; echo {name}-$i-end"
    )
}

/// One command, as somebody sees it who comes back now and then.
#[derive(Default)]
struct Seen {
    offset: u64,
    bytes: u64,
    lost: u64,
    text: String,
}

impl Seen {
    /// Fetches what is new. `false`: the server has gone, and what it said is not counted.
    async fn fetch(&mut self, server: &Running, sandbox: &str, exec: &str) -> bool {
        let path =
            format!("/api/v1/sandboxes/{sandbox}/execs/{exec}/output?offset={}", self.offset);
        let Ok(reply) = server.call("GET", &path, &[], &Value::Null).await else { return false };
        if reply.status != 200 {
            return false;
        }
        for line in lines(&reply) {
            match line["stream"].as_str().unwrap() {
                "exit" => {}
                "gap" => {
                    self.lost += line["lost"].as_u64().unwrap();
                    self.offset += line["lost"].as_u64().unwrap();
                }
                stream => {
                    assert_eq!(line["offset"], self.offset, "{line}");
                    let data = line["data"].as_str().unwrap();
                    self.offset += data.len() as u64;
                    self.bytes += data.len() as u64;
                    if stream == "stdout" {
                        self.text.push_str(data);
                    }
                }
            }
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_is_accounted_for_over_killed_servers() {
    let mut bed = Bed::make("native").await;
    let other = spawn(&bed.server).await;
    let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
    for name in 0..10 {
        let sandbox = if name % 2 == 0 { bed.sandbox.clone() } else { other.clone() };
        let path = format!("/api/v1/sandboxes/{sandbox}/exec");
        let body = json!({ "command": writer(name), "detach": true });
        let reply = bed.server.call("POST", &path, &[], &body).await.unwrap();
        let exec = reply.json().unwrap()["exec_id"].as_str().unwrap().to_owned();
        seen.insert((sandbox, exec), Seen::default());
    }
    for restart in 0..3 {
        for ((sandbox, exec), seen) in &mut seen {
            let before = seen.bytes;
            wait_for("something new", SOON, async || {
                seen.fetch(&bed.server, sandbox, exec).await;
                if seen.bytes > before { Ok(()) } else { Err("nothing") }
            })
            .await;
        }
        if restart < 2 {
            bed.server.kill().await;
        } else {
            assert!(bed.server.stop().await.success());
        }
        bed.server = bed.system.start().await;
    }
    for sandbox in [&bed.sandbox, &other] {
        let path = format!("/api/v1/sandboxes/{sandbox}/exec");
        bed.server.call("POST", &path, &[], &json!({ "command": "touch stop" })).await.unwrap();
    }
    for ((sandbox, exec), seen) in &mut seen {
        let path = format!("/api/v1/sandboxes/{sandbox}/execs/{exec}/wait?timeout=50s");
        let ended = bed.server.call("GET", &path, &[], &Value::Null).await.unwrap();
        assert_eq!(ended.json().unwrap()["exit_code"], 0, "{}", ended.text());
        assert!(seen.fetch(&bed.server, sandbox, exec).await);
        // They write less than the ring holds: nothing may be missing.
        assert_eq!(seen.lost, 0);
        let (numbers, last) = seen.text.trim_end().rsplit_once('\n').unwrap();
        let name = last.split('-').next().unwrap();
        let count: usize = last.split('-').nth(1).unwrap().parse().unwrap();
        let whole: Vec<String> = (1..=count).map(|i| format!("{name}-{i}")).collect();
        assert_eq!(numbers, whole.join("\n"));
        assert_eq!(seen.offset, seen.bytes);
    }
    let path = format!("/api/v1/sandboxes/{other}");
    bed.server.call("DELETE", &path, &[], &Value::Null).await.unwrap();
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_a_gap_of_that_size() {
    let bed = Bed::make("mock").await;
    let exec = bed.start("head -c 1000000 /dev/zero | tr '\\0' x; echo end").await;
    assert_eq!(bed.wait(&exec).await["exit_code"], 0);
    let told =
        lines(&bed.call("GET", &format!("/execs/{exec}/output?follow=true"), Value::Null).await);
    let (gap, exit) = (&told[0], told.last().unwrap());
    assert_eq!((&gap["stream"], &gap["data"]), (&json!("gap"), &json!("")));
    let lost = gap["lost"].as_u64().unwrap();
    let got: usize = told[1..].iter().map(|l| l["data"].as_str().unwrap().len()).sum();
    assert_eq!(lost as usize + got, 1_000_004);
    assert!(got <= 256 << 10 && got > 200 << 10, "{got}");
    assert_eq!((&exit["stream"], &exit["exit_code"]), (&json!("exit"), &json!(0)));
    let beyond =
        bed.call("GET", &format!("/execs/{exec}/output?offset=2000000"), Value::Null).await;
    assert_eq!(beyond.status, 400);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_runs_once_whatever_breaks() {
    let mut bed = Bed::make("native").await;
    let body = json!({ "command": "echo ran >> ran; read x; echo $x; exit 7", "exec_id": "job-1",
                       "stdin": "input\n" });
    let first = bed.exec(body.clone()).await.json().unwrap();
    assert_eq!((&first["exit_code"], &first["stdout"]), (&json!(7), &json!("input\n")));
    // A client whose line broke asks again; so does one after a crash of the server.
    let slow = json!({ "command": "echo slow >> ran; sleep 1; echo done", "exec_id": "job-2" });
    let given_up = bed.exec(slow.clone());
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), given_up).await;
    assert!(given_up.is_err(), "it takes a second");
    bed.server.kill().await;
    bed.server = bed.system.start().await;
    let again = bed.exec(slow).await.json().unwrap();
    assert_eq!((&again["exit_code"], &again["stdout"]), (&json!(0), &json!("done\n")));
    let again = bed.exec(body.clone()).await;
    assert_eq!(again.status, 200, "{}", again.text());
    let again = again.json().unwrap();
    assert_eq!((&again["exit_code"], &again["stdout"]), (&first["exit_code"], &first["stdout"]));
    let mut detached = body.clone();
    detached["detach"] = true.into();
    let told = bed.exec(detached).await;
    assert_eq!((told.status, told.json().unwrap()["exec_id"].as_str()), (202, Some("job-1")));
    let mut other = body;
    other["command"] = "echo other >> ran".into();
    assert_eq!(bed.exec(other).await.status, 409);
    let ran = bed.exec(json!({ "command": "cat ran" })).await.json().unwrap();
    assert_eq!(ran["stdout"], "ran\nslow\n");
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fed_signalled_and_listed() {
    let bed = Bed::make("native").await;
    let exec = bed.start("read a; read b; echo \"$a+$b\"; exec sleep 1000").await;
    for (text, close) in [("one\n", false), ("two\n", true)] {
        let path = bed.path(&format!("/execs/{exec}/stdin?close={close}"));
        let sent = exchange(bed.server.addr(), "POST", &path, &[], text.as_bytes()).await.unwrap();
        assert_eq!(sent.status, 200, "{}", sent.text());
    }
    wait_for("its words", SOON, async || {
        let told = bed.call("GET", &format!("/execs/{exec}/output"), Value::Null).await;
        if told.text().contains("one+two") { Ok(()) } else { Err(told.text()) }
    })
    .await;
    let listed = bed.call("GET", "/execs", Value::Null).await.json().unwrap();
    assert_eq!((&listed[0]["exec_id"], &listed[0]["state"]), (&json!(exec), &json!("running")));
    let short = bed.call("GET", &format!("/execs/{exec}/wait?timeout=20ms"), Value::Null).await;
    assert_eq!(short.json().unwrap()["state"], "running");
    let path = format!("/execs/{exec}/signal");
    assert_eq!(bed.call("POST", &path, json!({ "signal": "NOPE" })).await.status, 400);
    assert_eq!(bed.call("POST", &path, json!({ "signal": "HUP" })).await.status, 200);
    let ended = bed.wait(&exec).await;
    assert_eq!((&ended["exit_code"], &ended["signal"]), (&json!(129), &json!("HUP")));
    let late = bed.call("POST", &path, json!({ "signal": "TERM" })).await;
    assert_eq!(late.status, 409);
    assert_eq!(bed.call("GET", "/execs/none", Value::Null).await.status, 404);
    bed.close().await;
}

/// What is kept of a command whose sandbox's time was up before anybody looked at it.
async fn kept_of_a_second(bed: &Bed) -> Result<Vec<Value>, String> {
    let call = async |method: &str, path: &str, body: &Value| {
        let reply = bed.server.call(method, path, &[], body).await?;
        if reply.status < 300 { Ok(reply) } else { Err(reply.text()) }
    };
    let made = call("POST", "/api/v1/sandboxes", &json!({ "ttl": "1s" })).await?.json()?;
    let path = format!("/api/v1/sandboxes/{}", made["id"].as_str().unwrap());
    let body = json!({ "command": "while :; do echo words; sleep 0.05; done", "detach": true });
    // A slow machine may be too late.
    let told = call("POST", &format!("{path}/exec"), &body).await?.json()?;
    let record = format!("{path}/execs/{}", told["exec_id"].as_str().unwrap());
    wait_for("the end", SOON, async || {
        let record = call("GET", &record, &Value::Null).await?.json()?;
        if record["state"] == "lost" { Ok(()) } else { Err(record.to_string()) }
    })
    .await;
    Ok(lines(&call("GET", &format!("{record}/output"), &Value::Null).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_the_time_was_up_is_kept() {
    let bed = Bed::make("native").await;
    let told = wait_for("the last words", SOON, async || {
        let told = kept_of_a_second(&bed).await?;
        if told[0]["stream"] == "stdout" { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await;
    // Whether that was all, nobody can know.
    assert!(told.iter().any(|l| l["stream"] == "gap" && l["lost"] == 0), "{told:?}");
    assert_eq!(told.last().unwrap()["error"], "SANDBOX_DEAD");
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_outlives_its_sandbox_and_why_it_ended_is_told() {
    let mut bed = Bed::make("native").await;
    let ended = bed.start("echo over; exit 3").await;
    assert_eq!(bed.wait(&ended).await["exit_code"], 3);
    let running = bed.start("echo words; exec sleep 1000").await;
    wait_for("its words", SOON, async || {
        let told = bed.call("GET", &format!("/execs/{running}/output"), Value::Null).await;
        if told.text().contains("words") { Ok(()) } else { Err(told.text()) }
    })
    .await;
    assert_eq!(bed.call("DELETE", "", Value::Null).await.status, 200);
    bed.server.kill().await;
    bed.server = bed.system.start().await;
    let output = |exec: &str| format!("/execs/{exec}/output?follow=true");
    let told = lines(&bed.call("GET", &output(&ended), Value::Null).await);
    assert_eq!((&told[0]["data"], &told[1]["exit_code"]), (&json!("over\n"), &json!(3)));
    let told = lines(&bed.call("GET", &output(&running), Value::Null).await);
    assert_eq!(told[0]["data"], "words\n");
    assert_eq!(told.last().unwrap()["error"], "SANDBOX_DEAD");
    let record = bed.call("GET", &format!("/execs/{running}"), Value::Null).await.json().unwrap();
    assert_eq!((&record["state"], &record["error"]), (&json!("lost"), &json!("destroyed")));
    let signal = json!({ "signal": "TERM" });
    let dead = bed.call("POST", &format!("/execs/{running}/signal"), signal).await;
    assert_eq!((dead.status, dead.json().unwrap()["code"].as_str()), (409, Some("SANDBOX_DEAD")));
    assert!(dead.text().contains("was destroyed"), "{}", dead.text());
    assert!(bed.server.stop().await.success());
}
