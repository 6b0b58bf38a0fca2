//! Advice on a configuration that can be used. Checks of parts that are not built
//! are left out; keys that ask for such a part fail.

use std::path::Path;

use types::Secret;

use super::unserved::absent_providers;
use super::{Config, DatabaseDriver, Loaded, LogFormat, unserved};
use crate::check::{Check, Severity};

/// The shortest key that nobody can guess.
const KEY_BYTES: usize = 32;
/// What examples hold in place of a key.
const PLACEHOLDERS: [&str; 3] = ["change-me", "changeme", "replace-me"];

/// Every check, in the order of the contract.
pub fn lint(loaded: &Loaded, production: bool) -> Vec<Check> {
    let config = &loaded.config;
    let mut out = vec![Check::pass("config", "the configuration can be used")];
    let severity = Severity::for_production(production);
    auth(config, severity, &mut out);
    serving(config, severity, &mut out);
    limits(config, severity, &mut out);
    providers(loaded, severity, &mut out);
    for (key, text) in unserved(loaded) {
        out.push(Check::fail(&key, &text, "remove the key, or set it to its default"));
    }
    for text in loaded.warnings.iter().cloned().chain(absent_providers(loaded)) {
        out.push(Check::of(false, Severity::Warn, "ignored", &text, "remove it"));
    }
    out
}

fn auth(config: &Config, production: Severity, out: &mut Vec<Check>) {
    let auth = &config.auth;
    out.push(Check::of(
        auth.enabled,
        production,
        "auth.enabled",
        if auth.enabled { "a key is demanded" } else { "a key is not demanded" },
        "set auth.enabled: true, so that a missing key stops the server from starting",
    ));
    for (name, key) in
        [("auth.api_key", &auth.api_key), ("auth.admin_api_key", &auth.admin_api_key)]
    {
        let problem = key_problem(key);
        out.push(Check::of(
            problem.is_none(),
            production,
            name,
            problem.unwrap_or("is set and long enough"),
            &format!("set {name} to at least {KEY_BYTES} random bytes: openssl rand -hex 32"),
        ));
    }
    let same = !auth.api_key.is_empty() && auth.api_key.matches(auth.admin_api_key.reveal());
    out.push(Check::of(
        !same,
        production,
        "auth.key_separation",
        if same { "users hold the admin key" } else { "the two keys differ" },
        "give auth.admin_api_key a value of its own",
    ));
    out.push(Check::of(
        !auth.admin_fallback_enabled,
        production,
        "auth.admin_fallback_enabled",
        if auth.admin_fallback_enabled {
            "without an admin key, the API key opens the admin routes"
        } else {
            "admin routes need the admin key"
        },
        "set auth.admin_fallback_enabled: false",
    ));
}

fn serving(config: &Config, production: Severity, out: &mut Vec<Check>) {
    let origins = &config.server.cors_allowed_origins;
    let any = origins.is_empty() || origins.iter().any(|o| o == "*");
    out.push(Check::of(
        !any,
        production,
        "server.cors_allowed_origins",
        if any { "any web page may read answers" } else { "only listed origins" },
        "list the origins of your own pages",
    ));
    if config.database.driver == DatabaseDriver::Sqlite {
        let absolute = Path::new(&config.database.path).is_absolute();
        out.push(Check::of(
            absolute,
            production,
            "database.path",
            if absolute { "is absolute" } else { "depends on the directory of the start" },
            "write an absolute path, or remove the key: the default lies in data_dir",
        ));
    }
    let json = config.logging.format == LogFormat::Json;
    out.push(Check::of(
        json,
        production,
        "logging.format",
        if json { "is json" } else { "is for people, not for collectors" },
        "set logging.format: json",
    ));
}

fn limits(config: &Config, production: Severity, out: &mut Vec<Check>) {
    let defaults = &config.defaults;
    let caps = defaults.max_sandboxes > 0 && defaults.max_sandboxes_per_owner > 0;
    out.push(Check::of(
        caps,
        production,
        "defaults.sandbox_caps",
        if caps { "sandboxes are bounded" } else { "sandboxes are not bounded" },
        "set defaults.max_sandboxes and defaults.max_sandboxes_per_owner",
    ));
    let times = !defaults.default_exec_timeout.is_zero() && !defaults.max_exec_timeout.is_zero();
    out.push(Check::of(
        times,
        production,
        "defaults.exec_timeouts",
        if times { "commands are bounded" } else { "a command may run without end" },
        "set defaults.default_exec_timeout and defaults.max_exec_timeout",
    ));
    let ttl = !defaults.max_ttl.is_zero();
    out.push(Check::of(
        ttl,
        production,
        "defaults.max_ttl",
        if ttl { "a sandbox's life is bounded" } else { "a sandbox may live for ever" },
        "set defaults.max_ttl",
    ));
}

fn providers(loaded: &Loaded, production: Severity, out: &mut Vec<Check>) {
    let providers = &loaded.config.providers;
    match providers.default.as_str() {
        "mock" => out.push(Check::of(
            false,
            production,
            "providers.default",
            "mock isolates nothing: it is for tests",
            "set providers.default: native",
        )),
        "native" => out.push(Check::of(
            providers.native.enabled,
            Severity::Fail,
            "providers.default",
            if providers.native.enabled { "is native" } else { "is native, which is off" },
            "set providers.native.enabled: true",
        )),
        // Named by `unserved`.
        _ => {}
    }
}

fn key_problem(key: &Secret) -> Option<&'static str> {
    let text = key.reveal().to_ascii_lowercase();
    if text.is_empty() {
        Some("is not set")
    } else if PLACEHOLDERS.iter().any(|p| text.contains(p)) {
        Some("is the placeholder of an example")
    } else if text.len() < KEY_BYTES {
        Some("is shorter than 32 bytes")
    } else {
        None
    }
}

/// Keys that are set and easy to guess: the server warns of them when it starts.
pub fn weak_keys(config: &Config) -> Vec<String> {
    let auth = &config.auth;
    [("auth.api_key", &auth.api_key), ("auth.admin_api_key", &auth.admin_api_key)]
        .into_iter()
        .filter(|(_, key)| !key.is_empty())
        .filter_map(|(name, key)| key_problem(key).map(|p| format!("{name} {p}")))
        .collect()
}
