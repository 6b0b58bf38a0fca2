//! When a value is what was recorded.

use serde_json::Value;
use types::{SandboxId, Timestamp, duration};

use super::vars::Vars;

pub struct Comparison<'a> {
    pub vars: &'a Vars,
    /// What `mock` in the recording is read as.
    pub provider: &'a str,
    pub exact_keys: bool,
}

impl Comparison<'_> {
    /// Compares a JSON value; `at` says where it stands.
    pub fn json(&self, at: &str, want: &Value, got: &Value) -> Result<(), String> {
        match (want, got) {
            (Value::String(text), _) => self.word(at, text, got),
            (Value::Object(want), Value::Object(got)) => {
                for (key, value) in want {
                    let at = format!("{at}.{key}");
                    let found = got.get(key).ok_or_else(|| format!("{at} is missing"))?;
                    self.json(&at, value, found)?;
                }
                match got.keys().find(|key| self.exact_keys && !want.contains_key(*key)) {
                    Some(extra) => Err(format!("{at}.{extra} is one key too many")),
                    None => Ok(()),
                }
            }
            (Value::Array(want), Value::Array(got)) => {
                if want.len() != got.len() {
                    let (w, g) = (want.len(), got.len());
                    return Err(format!("{at} has {g} items, not {w}: {got:?}"));
                }
                let mut pairs = want.iter().zip(got).enumerate();
                pairs.try_for_each(|(i, (w, g))| self.json(&format!("{at}[{i}]"), w, g))
            }
            (Value::Number(want), Value::Number(got)) if want.as_f64() == got.as_f64() => Ok(()),
            (want, got) if want == got => Ok(()),
            (want, got) => Err(format!("{at} is {got}, not {want}")),
        }
    }

    /// Compares a recorded word, which may stand for what varies.
    pub fn word(&self, at: &str, want: &str, got: &Value) -> Result<(), String> {
        let text = got.as_str();
        let holds = match want {
            "<any>" => true,
            "<text>" => text.is_some(),
            "<number>" => got.is_number(),
            "<id>" => text.is_some_and(|t| !t.is_empty()),
            "<sandbox>" => text.is_some_and(|t| SandboxId::parse(t).is_ok()),
            "<time>" => text.is_some_and(|t| Timestamp::parse(t).is_some()),
            "<duration>" => text.is_some_and(|t| duration::parse(t).is_ok()),
            "<uuid>" => text.is_some_and(is_uuid),
            name if self.vars.is_pending(name) => text.is_some_and(|t| !t.is_empty()),
            "mock" => text == Some(self.provider),
            literal => text == Some(&self.vars.fill(literal)),
        };
        if holds { Ok(()) } else { Err(format!("{at} is {got}, not {want:?}")) }
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))
}

mod tests {
    use serde_json::json;

    use super::*;

    fn same(want: Value, got: Value) -> bool {
        let mut vars = Vars::default();
        vars.save("sb", "sb-1".to_owned());
        vars.expect(["new".to_owned()].into_iter());
        Comparison { vars: &vars, provider: "native", exact_keys: false }
            .json("$", &want, &got)
            .is_ok()
    }

    #[test]
    fn literals_types_and_lengths_hold() {
        assert!(same(json!({"a": 1}), json!({"a": 1, "b": 2})));
        assert!(!same(json!({"a": 1, "b": 2}), json!({"a": 1})));
        assert!(!same(json!({"a": 1}), json!({"a": "1"})));
        assert!(!same(json!([1]), json!([1, 2])));
        assert!(!same(json!([]), json!(null)));
        assert!(same(json!("mock"), json!("native")) && !same(json!("mock"), json!("mock")));
        assert!(same(json!("{sb}"), json!("sb-1")) && !same(json!("{sb}"), json!("sb-2")));
        assert!(same(json!("{new}"), json!("x")) && !same(json!("{new}"), json!(1)));
    }

    #[test]
    fn what_varies_still_has_a_form() {
        assert!(same(json!("<time>"), json!("2026-02-01T10:00:00Z")));
        assert!(!same(json!("<time>"), json!("yesterday")));
        assert!(
            same(json!("<duration>"), json!("1.5ms")) && !same(json!("<duration>"), json!("1"))
        );
        assert!(same(json!("<number>"), json!(1.5)) && !same(json!("<number>"), json!("1")));
        assert!(same(json!("<uuid>"), json!("01234567-89ab-4cde-8f01-23456789abcd")));
        assert!(!same(json!("<uuid>"), json!("01234567-89ab-4cde-8f01")));
        assert!(!same(json!("<sandbox>"), json!("../x")));
    }
}
