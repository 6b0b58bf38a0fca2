//! Checks of steps that the transcripts describe in words only.

use serde_json::Value;
use testkit::Reply;
use types::{Timestamp, duration};

use super::expect::ndjson;

type Held = Result<(), String>;

/// A step marked `skip`. One that is not listed here fails.
pub fn check(file: &str, scenario: &str, step: &str, reply: &Reply, provider: &str) -> Held {
    match (file, scenario, step) {
        ("sandboxes", "logs and stats", "logs" | "logs, bad count") => lines_of(reply, 1, 100),
        ("sandboxes", "logs and stats", "logs, two lines") => lines_of(reply, 1, 2),
        ("sandboxes", "logs and stats", "stats") => stats(reply),
        ("exec", "stream: two streams", "an unknown program") => unknown_program(reply),
        ("system", "who may ask", "outside the API") => not_found(reply),
        ("system", "providers", "list") => providers(reply, provider),
        ("system", "providers", "one") => provider_detail(reply, provider),
        ("system", "providers", "test") => provider_test(reply, provider),
        _ => Err("nobody has written this check".to_owned()),
    }
}

/// What holds of a step beside what is recorded.
pub fn also(file: &str, scenario: &str, step: &str, reply: &Reply) -> Held {
    match (file, scenario, step) {
        ("system", "who may ask", "a wrong method") => {
            let allow = reply.header("allow").unwrap_or_default();
            let methods: Vec<&str> = allow.split(',').map(str::trim).collect();
            let all = ["GET", "POST", "DELETE"].iter().all(|m| methods.contains(m));
            hold(all && !methods.contains(&"PUT"), || format!("allow is {allow:?}"))
        }
        ("system", "health", "health without a key") => {
            let body = reply.json()?;
            let uptime = body["uptime"].as_str().is_some_and(|t| duration::parse(t).is_ok());
            hold(uptime && body["version"].is_string(), || format!("the body is {body}"))
        }
        ("exec", "stream: two streams", "a failing command") => exit_line(reply, 4, false),
        ("exec", "stream: two streams", "nothing" | "lines" | "argv") => exit_line(reply, 0, false),
        ("exec", "stream: two streams", "past its deadline") => {
            exit_line(reply, 124, true)?;
            let told = reply.text().contains("exec timeout");
            hold(told, || "nothing says why it ended".to_owned())
        }
        _ => Ok(()),
    }
}

fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn json_200(reply: &Reply) -> Result<Value, String> {
    hold(reply.status == 200, || format!("status {}: {}", reply.status, reply.text()))?;
    let kind = reply.header("content-type");
    hold(kind == Some("application/json"), || format!("content-type is {kind:?}"))?;
    reply.json()
}

fn lines_of(reply: &Reply, at_least: usize, at_most: usize) -> Held {
    let body = json_200(reply)?;
    let lines = body.as_array().ok_or_else(|| format!("{body} is no array"))?;
    let strings = lines.iter().all(Value::is_string);
    let count = (at_least..=at_most).contains(&lines.len());
    hold(strings && count, || format!("not {at_least} to {at_most} strings: {body}"))
}

fn stats(reply: &Reply) -> Held {
    let body = json_200(reply)?;
    let numbers = ["cpu_pct", "mem_bytes", "mem_limit_bytes"].map(|k| body[k].is_number());
    hold(body["supported"] == true && numbers == [true; 3], || format!("the body is {body}"))
}

fn unknown_program(reply: &Reply) -> Held {
    hold(reply.status == 200, || format!("status {}: {}", reply.status, reply.text()))?;
    let words = ndjson(&reply.text())?
        .iter()
        .any(|l| l["stream"] == "stderr" && l["data"].as_str().is_some_and(|d| !d.is_empty()));
    hold(words, || "no words on stderr".to_owned())?;
    exit_line(reply, 127, false)
}

fn exit_line(reply: &Reply, code: i64, timed_out: bool) -> Held {
    let lines = ndjson(&reply.text())?;
    let exits: Vec<&Value> = lines.iter().filter(|l| l["stream"] == "exit").collect();
    let [exit] = exits[..] else { return Err(format!("not one closing line: {exits:?}")) };
    let right = exit["exit_code"] == code
        && exit["data"] == ""
        && exit.get("error").is_none()
        && exit.get("timed_out").is_some() == timed_out;
    hold(right, || format!("the closing line is {exit}"))
}

fn not_found(reply: &Reply) -> Held {
    let body = reply.json()?;
    let right = reply.status == 404
        && body["code"] == "NOT_FOUND"
        && body["message"].is_string()
        && reply.header("content-type") == Some("application/json");
    hold(right, || format!("status {}: {body}", reply.status))
}

fn health_item(item: &Value) -> Held {
    let right = item["name"].is_string()
        && item["healthy"].is_boolean()
        && item["default"].is_boolean()
        && item["latency_ms"].is_u64()
        && item["last_checked"].as_str().is_some_and(|t| Timestamp::parse(t).is_some())
        && item["capabilities"].as_array().is_some_and(|c| c.iter().all(Value::is_string));
    hold(right, || format!("not a provider: {item}"))
}

fn providers(reply: &Reply, provider: &str) -> Held {
    let body = json_200(reply)?;
    let items = body.as_array().ok_or_else(|| format!("{body} is no array"))?;
    items.iter().try_for_each(health_item)?;
    let defaults: Vec<_> = items.iter().filter(|i| i["default"] == true).collect();
    hold(defaults.len() == 1 && defaults[0]["name"] == provider, || {
        format!("the default is not {provider}: {body}")
    })
}

fn provider_detail(reply: &Reply, provider: &str) -> Held {
    let body = json_200(reply)?;
    health_item(&body["health"])?;
    let right = body["name"] == provider
        && body["healthy"] == true
        && body["default"] == true
        && body["sandbox_count"].is_u64()
        && body["config"]["type"] == provider;
    hold(right, || format!("the body is {body}"))
}

fn provider_test(reply: &Reply, provider: &str) -> Held {
    let body = json_200(reply)?;
    let map = body.as_object().ok_or_else(|| format!("{body} is no object"))?;
    let right = map.values().all(Value::is_boolean) && body[provider] == true;
    hold(right, || format!("the body is {body}"))
}
