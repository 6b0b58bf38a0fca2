//! `defaults.warm_pool`: how many sandboxes of which kind are kept ready.

use serde_json::Value;

use super::setting::{Raw, Setting};

/// What a number alone means is a pool of that many of the default kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WarmPool {
    /// Empty: the default one.
    pub provider: String,
    /// Empty: the default one.
    pub image: String,
    /// 0: the default.
    pub memory_mb: u32,
    /// 0: the default.
    pub vcpus: u32,
    /// 0: the default.
    pub disk_size_mb: u32,
    pub count: u32,
}

/// More than this on one host is a slip of the pen.
const MOST: u32 = 4096;

impl Setting for Vec<WarmPool> {
    fn set(&mut self, raw: Raw<'_>) -> Result<(), String> {
        let pools = match raw {
            Raw::File(Value::Array(items)) => items.iter().map(pool).collect::<Result<_, _>>()?,
            Raw::File(Value::Object(_)) => {
                return Err("is a number, or a list of pools (`- image: …`)".to_owned());
            }
            other => match number(other)? {
                0 => Vec::new(),
                count => vec![WarmPool { count, ..WarmPool::default() }],
            },
        };
        *self = pools;
        Ok(())
    }

    fn show(&self) -> Value {
        match self.as_slice() {
            [] => 0.into(),
            [one @ WarmPool { count, .. }] if *one == plain(*count) => (*count).into(),
            pools => pools.iter().map(shown).collect(),
        }
    }
}

fn plain(count: u32) -> WarmPool {
    WarmPool { count, ..WarmPool::default() }
}

fn shown(pool: &WarmPool) -> Value {
    let mut map = serde_json::Map::new();
    for (key, text) in [("provider", &pool.provider), ("image", &pool.image)] {
        if !text.is_empty() {
            map.insert(key.into(), text.as_str().into());
        }
    }
    let numbers = [
        ("memory_mb", pool.memory_mb),
        ("vcpus", pool.vcpus),
        ("disk_size_mb", pool.disk_size_mb),
        ("count", pool.count),
    ];
    for (key, n) in numbers {
        if n != 0 {
            map.insert(key.into(), n.into());
        }
    }
    Value::Object(map)
}

fn number(raw: Raw<'_>) -> Result<u32, String> {
    let mut count = 0_u32;
    count.set(raw)?;
    if count > MOST {
        return Err(format!("is above {MOST}"));
    }
    Ok(count)
}

fn pool(item: &Value) -> Result<WarmPool, String> {
    let Value::Object(map) = item else {
        return Err("has an entry that is no mapping".to_owned());
    };
    let mut pool = WarmPool::default();
    for (key, value) in map {
        let raw = Raw::File(value);
        let set = match key.as_str() {
            "provider" => pool.provider.set(raw),
            "image" => pool.image.set(raw),
            "memory_mb" => pool.memory_mb.set(raw),
            "vcpus" => pool.vcpus.set(raw),
            "disk_size_mb" => pool.disk_size_mb.set(raw),
            "count" => number(raw).map(|n| pool.count = n),
            _ => {
                return Err(format!(
                    "has a key `{key}`: it takes image, memory_mb, vcpus, disk_size_mb, provider, count"
                ));
            }
        };
        set.map_err(|problem| format!("`{key}` {problem}"))?;
    }
    match pool.count {
        0 => Err("has an entry without `count`".to_owned()),
        _ => Ok(pool),
    }
}
