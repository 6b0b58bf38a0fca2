//! What the answer to one step has to be, and whether it is.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::Reply;

use super::compare::Comparison;
use super::transcript::{Ours, Statuses, Step};

pub fn check(step: &Step, reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    let nothing = Ours::default();
    let ours = step.ours.as_ref().unwrap_or(&nothing);
    status(step, ours, reply)?;
    content_type(step, ours, reply, c)?;
    headers(step, ours, reply, c)?;
    body(step, ours, reply, c)
}

fn status(step: &Step, ours: &Ours, reply: &Reply) -> Result<(), String> {
    let allowed = match &ours.status {
        None => vec![step.response.status],
        Some(Statuses::One(status)) => vec![*status],
        Some(Statuses::Any(list)) => list.clone(),
    };
    if allowed.contains(&reply.status) {
        return Ok(());
    }
    Err(format!("status {}, not {allowed:?}: {}", reply.status, reply.text()))
}

/// None with 204, JSON where `ours` gives a code or a JSON body, else what was recorded. Where
/// ours is another text than the recorded body, there is nothing to compare with.
fn content_type(step: &Step, ours: &Ours, reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    let recorded = step.response.headers.get("content-type").map(String::as_str);
    let want = match (ours.headers.get("content-type"), recorded) {
        _ if reply.status == 204 => None,
        _ if ours.code.is_some() || ours.json.is_some() => Some("application/json"),
        (Some(own), _) => Some(own.as_str()),
        (None, _) if ours.text.is_some() && step.response.text.is_none() => return Ok(()),
        (None, recorded) => recorded,
    };
    match (want, reply.header("content-type")) {
        (None, None) => Ok(()),
        (Some(want), Some(got)) => c.word("content-type", want, &json!(got)),
        (want, got) => Err(format!("content-type is {got:?}, not {want:?}")),
    }
}

fn headers(step: &Step, ours: &Ours, reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    let mut want: BTreeMap<&str, &str> = BTreeMap::new();
    for name in step.headers_matter.iter().filter(|n| *n != "content-type") {
        if let Some(value) = step.response.headers.get(name) {
            want.insert(name, value);
        }
    }
    want.extend(ours.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    for (name, value) in want {
        let got = reply.header(name).ok_or_else(|| format!("the header {name} is missing"))?;
        if name == "allow" {
            if words(got) != words(value) {
                return Err(format!("allow is {got:?}, not {value:?}"));
            }
            continue;
        }
        c.word(name, value, &json!(got))?;
    }
    Ok(())
}

fn words(list: &str) -> Vec<&str> {
    let mut words: Vec<&str> = list.split(',').map(str::trim).collect();
    words.sort_unstable();
    words
}

fn body(step: &Step, ours: &Ours, reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    if let Some(code) = &ours.code {
        let want = json!({"code": code, "message": "<text>"});
        let exact = Comparison { exact_keys: true, ..*c };
        return exact.json("$", &want, &reply.json()?);
    }
    if let Some(want) = &ours.json {
        return c.json("$", want, &reply.json()?);
    }
    if let Some(want) = &ours.text {
        return text(want, reply, c);
    }
    if let Some(want) = &step.response.lines {
        return lines(step, want, reply, c);
    }
    if let Some(want) = &step.response.json {
        if !reply.text().ends_with('\n') {
            return Err("a JSON answer ends with a newline".to_owned());
        }
        return c.json("$", want, &reply.json()?);
    }
    match &step.response.text {
        Some(_) if step.text.as_deref() == Some("any") => Ok(()),
        Some(want) => text(want, reply, c),
        None => text("", reply, c),
    }
}

fn text(want: &str, reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    c.word("the body", want, &json!(reply.text()))
}

/// Streams are compared joined: nobody relies on where chunks are cut.
fn lines(step: &Step, want: &[Value], reply: &Reply, c: &Comparison<'_>) -> Result<(), String> {
    let got = ndjson(&reply.text())?;
    let last = got.last().ok_or("a stream ends with a line that says how")?;
    if last["stream"] != "exit" || !(last["exit_code"].is_i64() || last["error"].is_string()) {
        return Err(format!("the last line is {last}"));
    }
    let (want, got) = (joined(want), joined(&got[..got.len() - 1]));
    match step.lines.as_deref() {
        Some("shape") => {
            let streams = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
            match (streams(&want), streams(&got)) {
                (w, g) if w == g => Ok(()),
                (w, g) => Err(format!("the streams are {g:?}, not {w:?}")),
            }
        }
        Some(other) => Err(format!("this replayer does not know lines: {other}")),
        None => {
            c.json("lines", &json!(want), &json!(got))?;
            c.json("lines", &json!(want.len()), &json!(got.len()))
        }
    }
}

/// The lines of a stream that are not blank; each has to be an object.
pub fn ndjson(text: &str) -> Result<Vec<Value>, String> {
    let filled = text.lines().filter(|line| !line.is_empty());
    filled
        .map(|line| match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(other) => Err(format!("a line is not an object: {other}")),
            Err(e) => Err(format!("a line is not JSON: {e}: {line}")),
        })
        .collect()
}

fn joined(lines: &[Value]) -> BTreeMap<String, String> {
    let mut streams = BTreeMap::<String, String>::new();
    for line in lines {
        let (name, data) = (&line["stream"], &line["data"]);
        let name = name.as_str().unwrap_or_default().to_owned();
        streams.entry(name).or_default().push_str(data.as_str().unwrap_or_default());
    }
    streams
}
