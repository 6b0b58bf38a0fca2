//! Keys whose feature is not built yet: known, accepted at their default, refused at any value
//! that would change what the user gets.

use super::load::slots;
use super::{Config, DatabaseDriver, Loaded, SpawnOverflow};

/// A line for each key that asks for something this build does not have.
pub fn unserved(loaded: &Loaded) -> Vec<(String, String)> {
    let config = &loaded.config;
    let mut out = oidc(config);
    let mut refuse = |asked: bool, key: &str, what: &str| {
        if asked {
            out.push((key.to_owned(), format!("{what} not served yet: remove the key")));
        }
    };
    refuse(config.rate_limit.enabled, "rate_limit.enabled", "rate limits are");
    refuse(
        config.defaults.spawn_overflow == SpawnOverflow::Queue,
        "defaults.spawn_overflow",
        "a queue of spawns is",
    );
    refuse(config.pool.enabled, "pool.enabled", "the pool of shared sandboxes is");
    refuse(config.database.driver == DatabaseDriver::Postgres, "database.driver", "PostgreSQL is");
    refuse(config.worker.rpc_tls.enabled, "worker.rpc_tls.enabled", "TLS between workers is");
    refuse(config.providers.e2b.enabled, "providers.e2b.enabled", "the provider e2b is");
    refuse(config.providers.custom.enabled, "providers.custom.enabled", "custom providers are");
    refuse(config.providers.proot.enabled, "providers.proot.enabled", "the provider proot is");
    let default = config.providers.default.as_str();
    match default {
        "native" | "mock" => {}
        "docker" | "firecracker" | "e2b" | "custom" | "proot" => out.push((
            "providers.default".to_owned(),
            format!("the provider {default} is not served yet: use native"),
        )),
        _ => out.push((
            "providers.default".to_owned(),
            format!("there is no provider `{default}`: use native (or auto)"),
        )),
    }
    out
}

/// Providers that were switched on by name although they are not there. Their default is on, so
/// this is no error; requests that ask for them will be told.
pub fn absent_providers(loaded: &Loaded) -> Vec<String> {
    let providers = &loaded.config.providers;
    [
        ("providers.docker.enabled", providers.docker.enabled),
        ("providers.firecracker.enabled", providers.firecracker.enabled),
    ]
    .into_iter()
    .filter(|(key, on)| *on && loaded.is_set(key))
    .map(|(key, _)| format!("`{key}` has no effect: that provider is not served yet"))
    .collect()
}

/// Any key of OpenID Connect that is not at its default.
fn oidc(config: &Config) -> Vec<(String, String)> {
    let (mut ours, mut default) = (config.clone(), Config::default());
    let pairs = slots(&mut ours).into_iter().zip(slots(&mut default));
    pairs
        .filter(|((path, value), (_, default))| {
            path.starts_with("auth.oidc_") && value.show() != default.show()
        })
        .map(|((path, _), _)| (path, "OpenID Connect is not served yet: use auth.api_key".into()))
        .collect()
}
