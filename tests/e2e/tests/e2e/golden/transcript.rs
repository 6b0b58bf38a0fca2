//! The form of a transcript.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Transcript {
    pub config: Value,
    pub scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
pub struct Scenario {
    pub name: String,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(rename = "do")]
    pub name: String,
    pub request: Request,
    pub response: Response,
    #[serde(default)]
    pub ours: Option<Ours>,
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    #[serde(default)]
    pub headers_matter: Vec<String>,
    #[serde(default)]
    pub exact_keys: bool,
    #[serde(default)]
    pub lines: Option<String>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default, rename = "note")]
    _note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub json: Option<Value>,
    #[serde(default)]
    pub raw: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// `Some(Null)` is a recorded `null`.
    #[serde(default, deserialize_with = "present")]
    pub json: Option<Value>,
    #[serde(default)]
    pub lines: Option<Vec<Value>>,
    #[serde(default)]
    pub text: Option<String>,
}

/// Where our answer differs from the recorded one.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    #[serde(default)]
    pub status: Option<Statuses>,
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub json: Option<Value>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub skip: bool,
    pub why: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Statuses {
    One(u16),
    Any(Vec<u16>),
}

fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

pub fn load(name: &str) -> Transcript {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(folder.join(format!("{name}.json")))
        .unwrap_or_else(|e| panic!("the transcript {name}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("the transcript {name}: {e}"))
}
