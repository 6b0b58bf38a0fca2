//! Who may be let near a server that asks for no key.

use std::net::IpAddr;

use crate::config::{Config, weak_keys};
use crate::failure::Failure;

/// Refuses what is locked without a key, and what is open to everybody.
pub fn check(config: &Config, insecure: bool) -> Result<(), Failure> {
    let locked = config.auth.has_keys();
    if config.auth.enabled && !locked {
        return Err(Failure::new(
            "auth.enabled is true, but there is no key: set auth.api_key (STACYVM_AUTH_API_KEY), \
             for example to the output of `openssl rand -hex 32`",
        ));
    }
    if !locked && !is_loopback(&config.server.host) && !insecure {
        return Err(Failure::new(format!(
            "without a key, anybody who reaches {} could run code here: set auth.api_key \
             (STACYVM_AUTH_API_KEY), or server.host to 127.0.0.1, or pass --insecure",
            config.server.host
        )));
    }
    Ok(())
}

/// What is allowed but should be known; logged when the server starts.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut out = weak_keys(config);
    if !config.auth.has_keys() && !is_loopback(&config.server.host) {
        out.push("anybody who reaches this server can run code: there is no key".to_owned());
    }
    out
}

pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use types::Secret;

    use super::*;

    fn config(host: &str, key: &str, enabled: bool) -> Config {
        let mut config = Config::default();
        config.server.host = host.to_owned();
        config.auth.api_key = Secret::new(key);
        config.auth.enabled = enabled;
        config
    }

    #[test]
    fn bug_41_enabled_demands_a_key() {
        assert!(check(&config("127.0.0.1", "", true), true).is_err());
        assert!(check(&config("127.0.0.1", "k", true), false).is_ok());
        assert!(check(&config("0.0.0.0", "k", false), false).is_ok());
    }

    #[test]
    fn a_public_door_needs_a_key_or_a_word() {
        for host in ["0.0.0.0", "::", "10.0.0.1", "example.com", "[::]"] {
            assert!(check(&config(host, "", false), false).is_err(), "{host}");
            let open = config(host, "", false);
            assert!(check(&open, true).is_ok(), "{host}");
            assert_eq!(warnings(&open).len(), 1, "{host}");
        }
        for host in ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "LocalHost"] {
            assert!(check(&config(host, "", false), false).is_ok(), "{host}");
            assert!(warnings(&config(host, "", false)).is_empty(), "{host}");
        }
        assert_eq!(warnings(&config("0.0.0.0", "short", false)).len(), 1);
    }
}
