//! What a key can hold: how each kind is read from a file or a variable, and how it is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use ::providers::images::Registry;
use serde_json::Value;
use types::{Secret, duration};

use super::section::Node;
use super::warm_pool::WarmPool;

/// What is shown in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A value as it was written.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// In a file.
    File(&'a Value),
    /// In an environment variable or on the command line; never empty.
    Text(&'a str),
}

/// The value of one key.
pub trait Setting {
    /// Takes over a value; the error says what is wrong with it, without the key's name.
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String>;

    /// The value as JSON; secrets redacted.
    fn show(&self) -> Value;

    /// Whether its value is a mapping with names of the user's choice.
    fn is_map(&self) -> bool {
        false
    }
}

impl Raw<'_> {
    /// As text, also where YAML took it for a number.
    pub fn text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.to_owned()),
            Self::File(Value::String(text)) => Ok(text.clone()),
            Self::File(Value::Number(n)) => Ok(n.to_string()),
            Self::File(Value::Bool(b)) => Ok(b.to_string()),
            Self::File(Value::Null) => Ok(String::new()),
            Self::File(Value::Array(_) | Value::Object(_)) => Err("is not a text".to_owned()),
        }
    }

    fn secret(self) -> Result<Secret, String> {
        match self {
            // What a number looked like cannot be told any more: 1e3 and 1000 are one.
            Self::File(Value::Number(_) | Value::Bool(_)) => {
                Err("is not a text: write it in quotes".to_owned())
            }
            other => other.text().map(Secret::new),
        }
    }

    fn list(self) -> Result<Vec<String>, String> {
        let split = |text: &str| {
            text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
        };
        match self {
            Self::Text(text) => Ok(split(text)),
            Self::File(Value::String(text)) => Ok(split(text)),
            Self::File(Value::Null) => Ok(Vec::new()),
            Self::File(Value::Array(items)) => {
                items.iter().map(|item| Raw::File(item).text()).collect()
            }
            Self::File(_) => Err("is not a list".to_owned()),
        }
    }

    fn map(self) -> Result<Vec<(String, Value)>, String> {
        match self {
            Self::Text(_) => Err("cannot be set by a variable: use the file".to_owned()),
            Self::File(Value::Object(map)) => {
                Ok(map.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            Self::File(Value::Null) => Ok(Vec::new()),
            Self::File(_) => Err("is not a mapping".to_owned()),
        }
    }
}

impl Setting for bool {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = match raw.text()?.to_ascii_lowercase().as_str() {
            "" => return Ok(()),
            "true" | "t" | "1" | "yes" | "on" => true,
            "false" | "f" | "0" | "no" | "off" => false,
            _ => return Err("is neither true nor false".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> Value {
        (*self).into()
    }
}

macro_rules! number {
    ($($kind:ty),*) => { $(
        impl Setting for $kind {
            fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
                let text = raw.text()?;
                let text = text.trim();
                if text.is_empty() {
                    return Ok(());
                }
                *self = text.parse().map_err(|_| match text.parse::<i128>() {
                    Ok(n) if n < 0 => "must not be negative".to_owned(),
                    Ok(_) => format!("must not be larger than {}", <$kind>::MAX),
                    Err(_) => "is not a whole number".to_owned(),
                })?;
                Ok(())
            }

            fn show(&self) -> Value {
                (*self).into()
            }
        }
    )* };
}

number!(u16, u32, u64, i64, usize);

impl Setting for String {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = raw.text()?;
        Ok(())
    }

    fn show(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for Duration {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        let text = raw.text()?;
        if text.is_empty() {
            return Ok(());
        }
        let parsed = duration::parse(&text).map_err(|e| format!("is {e}"))?;
        if parsed.negative {
            return Err("must not be negative".to_owned());
        }
        *self = parsed.magnitude;
        Ok(())
    }

    fn show(&self) -> Value {
        duration::format(*self).into()
    }
}

impl Setting for Secret {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = raw.secret()?;
        Ok(())
    }

    fn show(&self) -> Value {
        redacted(self)
    }
}

impl Setting for Vec<String> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = raw.list()?;
        Ok(())
    }

    fn show(&self) -> Value {
        self.as_slice().into()
    }
}

impl Setting for Vec<Secret> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = raw.list()?.into_iter().map(Secret::new).collect();
        Ok(())
    }

    fn show(&self) -> Value {
        self.iter().map(redacted).collect()
    }
}

impl Setting for BTreeMap<String, String> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = entries(raw, |value| Raw::File(value).text())?;
        Ok(())
    }

    fn show(&self) -> Value {
        self.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect()
    }

    fn is_map(&self) -> bool {
        true
    }
}

impl Setting for BTreeMap<String, Secret> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = entries(raw, |value| Raw::File(value).secret())?;
        Ok(())
    }

    fn show(&self) -> Value {
        self.iter().map(|(k, v)| (k.clone(), redacted(v))).collect()
    }

    fn is_map(&self) -> bool {
        true
    }
}

impl Setting for Vec<Registry> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        *self = match raw {
            Raw::File(Value::Array(items)) => {
                items.iter().map(registry).collect::<Result<_, _>>()?
            }
            other => other.list()?.into_iter().map(Registry::named).collect(),
        };
        Ok(())
    }

    fn show(&self) -> Value {
        self.iter()
            .map(|r| match r.is_host_alone() {
                true => Value::from(r.host.as_str()),
                false => serde_json::json!({
                    "host": r.host,
                    "ca_file": r.ca_file,
                    "username": r.username,
                    "password": redacted(&r.password),
                    "token": redacted(&r.token),
                }),
            })
            .collect()
    }
}

/// A registry: its host alone, or a mapping with what opens it.
fn registry(item: &Value) -> Result<Registry, String> {
    let Value::Object(map) = item else {
        return Raw::File(item).text().map(Registry::named);
    };
    let mut registry = Registry::default();
    for (key, value) in map {
        let raw = Raw::File(value);
        let problem = |problem: String| format!("`{key}` {problem}");
        match key.as_str() {
            "host" => registry.host = raw.text().map_err(problem)?,
            "username" => registry.username = raw.text().map_err(problem)?,
            "password" => registry.password = raw.secret().map_err(problem)?,
            "token" => registry.token = raw.secret().map_err(problem)?,
            "ca_file" => registry.ca_file = raw.text().map_err(problem)?.into(),
            _ => {
                let known = "host, username, password, token, ca_file";
                return Err(format!("has a key `{key}`: it takes {known}"));
            }
        }
    }
    match registry.host.is_empty() {
        true => Err("has an entry without `host`".to_owned()),
        false => Ok(registry),
    }
}

fn entries<T>(
    raw: Raw<'_>,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, String> {
    let mut map = BTreeMap::new();
    for (name, value) in raw.map()? {
        let value = read(&value).map_err(|problem| format!("`{name}` {problem}"))?;
        map.insert(name, value);
    }
    Ok(map)
}

fn redacted(secret: &Secret) -> Value {
    if secret.is_empty() { "".into() } else { REDACTED.into() }
}

macro_rules! leaf {
    ($($kind:ty),* $(,)?) => { $(
        impl Node for $kind {
            fn visit<'a>(&'a mut self, path: &str, out: &mut Vec<(String, &'a mut dyn Setting)>) {
                out.push((path.to_owned(), self));
            }
        }
    )* };
}

leaf!(
    bool,
    u16,
    u32,
    u64,
    i64,
    usize,
    String,
    Duration,
    Secret,
    Vec<String>,
    Vec<Secret>,
    Vec<Registry>,
    Vec<WarmPool>,
    BTreeMap<String, String>,
    BTreeMap<String, Secret>,
);
