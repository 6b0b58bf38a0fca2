//! Values saved from answers, for `{name}` later on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Default)]
pub struct Vars {
    values: BTreeMap<String, String>,
    /// What the step at hand is about to save: in its answer such a name stands for any id.
    pending: BTreeSet<String>,
}

impl Vars {
    pub fn expect(&mut self, names: impl Iterator<Item = String>) {
        self.pending = names.collect();
    }

    pub fn save(&mut self, name: &str, value: String) {
        self.pending.remove(name);
        self.values.insert(name.to_owned(), value);
    }

    /// Whether a text is a `{name}` whose value only comes with this answer.
    pub fn is_pending(&self, text: &str) -> bool {
        let name = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        name.is_some_and(|name| self.pending.contains(name))
    }

    pub fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.values {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    pub fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|v| self.fill_json(v)).collect(),
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), self.fill_json(v))).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}
