//! What makes a configuration unusable.

use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use types::{Secret, WorkerId};

use super::Config;

/// How large a file with a secret may be.
const MAX_SECRET: u64 = 64 * 1024;
/// The smallest memory of a sandbox that can still start a program.
const MIN_MEMORY_MB: u32 = 8;
/// Below, a warm pool is busy with replacing what nobody has used.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Adds a line for everything that is wrong.
pub fn validate(config: &Config, problems: &mut Vec<String>) {
    let mut check = |ok: bool, text: String| {
        if !ok {
            problems.push(text);
        }
    };
    for origin in &config.server.cors_allowed_origins {
        check(
            is_origin(origin),
            format!(
                "`server.cors_allowed_origins`: `{origin}` is neither * nor an origin like https://example.com"
            ),
        );
    }
    let host = config.server.host.as_str();
    check(is_host(host), format!("`server.host`: `{host}` is not an address or a name"));
    check(
        std::path::Path::new(&config.data_dir).is_absolute() || config.data_dir.is_empty(),
        "`data_dir` must be an absolute path".to_owned(),
    );
    for (key, value, least) in [
        ("defaults.memory_mb", config.defaults.memory_mb, MIN_MEMORY_MB),
        ("defaults.vcpus", config.defaults.vcpus, 1),
        ("defaults.disk_size_mb", config.defaults.disk_size_mb, 1),
        ("providers.native.pids_limit", config.providers.native.pids_limit, 4),
    ] {
        check(value >= least, format!("`{key}` must be at least {least}"));
    }
    check(!config.defaults.ttl.is_zero(), "`defaults.ttl` must be more than 0".to_owned());
    check(
        config.defaults.warm_pool_max_age >= MIN_AGE,
        "`defaults.warm_pool_max_age` must be at least 10s".to_owned(),
    );
    for pool in &config.defaults.warm_pool {
        check(
            pool.memory_mb == 0 || pool.memory_mb >= MIN_MEMORY_MB,
            format!("`defaults.warm_pool`: `memory_mb` must be at least {MIN_MEMORY_MB}"),
        );
    }
    check(
        config.worker.id.is_empty() || WorkerId::parse(config.worker.id.clone()).is_ok(),
        "`worker.id` has 1 to 128 characters, no slash, no space".to_owned(),
    );
    check(
        !config.worker.heartbeat_interval.is_zero(),
        "`worker.heartbeat_interval` must be more than 0".to_owned(),
    );
    check(config.exec.max_output_bytes > 0, "`exec.max_output_bytes` must be more than 0".into());
    check(config.server.max_body_bytes > 0, "`server.max_body_bytes` must be more than 0".into());
    if let Err(fault) = providers::images::check_registries(&config.images.registries) {
        check(false, fault.message);
    }
    for (name, target) in &config.images.aliases {
        check(
            !name.is_empty() && !target.is_empty(),
            "`images.aliases`: neither a name nor what it stands for may be empty".to_owned(),
        );
    }
}

/// Reads the secrets that are named by a file. A secret and its file together are an error.
pub fn read_secret_files(config: &mut Config, problems: &mut Vec<String>) {
    let auth = &mut config.auth;
    for (key, file, secret) in [
        ("auth.worker_token", &auth.worker_token_file, &mut auth.worker_token),
        ("auth.worker_signing_key", &auth.worker_signing_key_file, &mut auth.worker_signing_key),
    ] {
        if file.is_empty() {
            continue;
        }
        if !secret.is_empty() {
            problems.push(format!("`{key}` and `{key}_file` are both set: keep one"));
            continue;
        }
        match secret_file(file) {
            Ok(text) => *secret = Secret::new(text),
            Err(problem) => problems.push(format!("`{key}_file` {problem}")),
        }
    }
}

fn secret_file(path: &str) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut text = String::new();
    let size = file.take(MAX_SECRET + 1).read_to_string(&mut text);
    if size.map_err(|e| format!("cannot be read: {e}"))? as u64 > MAX_SECRET {
        return Err("is larger than 64 KiB".to_owned());
    }
    match text.trim() {
        "" => Err("is empty".to_owned()),
        secret => Ok(secret.to_owned()),
    }
}

/// `*`, or scheme and host and nothing after them.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    is_host(host) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// An address, in brackets or not, or a DNS name.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(good)
}
