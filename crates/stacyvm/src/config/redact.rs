//! The configuration as it may be shown.

use serde_json::{Map, Value};

use super::Config;
use super::load::slots;

/// Every key with its value, nested as in the file; secrets redacted.
pub fn shown(config: &Config) -> Value {
    let mut config = config.clone();
    let mut root = Map::new();
    for (path, slot) in slots(&mut config) {
        put(&mut root, &path, slot.show());
    }
    Value::Object(root)
}

fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = map.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
