//! Who is asking, by key.

use http::HeaderMap;
use types::{ErrorCode, Fault, TenantId};

use crate::AuthConfig;

const ADMIN_KEY: &str = "x-admin-api-key";
const API_KEY: &str = "x-api-key";
const TENANT: &str = "x-tenant-id";

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing, not even a key.
    None,
    Read,
    Api,
    /// Any caller that the door let in.
    Any,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// No key is configured, or the route asks for none.
    Anonymous,
    Api,
    Admin,
}

impl Role {
    /// Whether a caller in this role may use a route. `locked`: keys are configured.
    pub fn may(self, scope: Scope, locked: bool) -> bool {
        match (self, scope) {
            (_, Scope::None) | (Self::Admin, _) => true,
            (Self::Api, Scope::Read | Scope::Api | Scope::Any) => true,
            (Self::Api, Scope::Admin) => false,
            (Self::Anonymous, Scope::Read | Scope::Api | Scope::Any | Scope::Admin) => !locked,
        }
    }
}

/// A caller that the door let in.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub role: Role,
    pub tenant: Option<TenantId>,
}

/// Finds the role that the presented keys give. A wrong key in one header does not spoil a right
/// one in the other.
pub(crate) fn authenticate(auth: &AuthConfig, headers: &HeaderMap) -> Result<Role, Fault> {
    if !auth.enabled() {
        return Ok(Role::Anonymous);
    }
    let mut best = None;
    for name in [ADMIN_KEY, API_KEY] {
        let Some(key) = headers.get(name).and_then(|v| v.to_str().ok()) else { continue };
        if key.is_empty() {
            continue;
        }
        // Both are always compared, so that time tells nothing about which one matched.
        let admin = !auth.admin_api_key.is_empty() & auth.admin_api_key.matches(key);
        let api = !auth.api_key.is_empty() & auth.api_key.matches(key);
        if admin {
            best = Some(Role::Admin);
        } else if api && best.is_none() {
            best = Some(Role::Api);
        }
    }
    best.ok_or_else(|| Fault::new(ErrorCode::Unauthorized, "a valid API key is required"))
}

/// Decides whether a caller may pass under `/admin`, before it is known whether the route exists.
pub(crate) fn admit_admin(auth: &AuthConfig, role: Role) -> Result<Role, Fault> {
    let fallback = auth.admin_api_key.is_empty() && auth.admin_fallback_enabled;
    match role {
        Role::Anonymous | Role::Admin => Ok(role),
        Role::Api if fallback => Ok(Role::Admin),
        Role::Api => Err(Fault::new(ErrorCode::Forbidden, "the admin API key is required")),
    }
}

/// The tenant that a key's holder speaks for.
pub(crate) fn tenant(headers: &HeaderMap) -> Result<Option<TenantId>, Fault> {
    text(headers, TENANT)?
        .map(TenantId::parse)
        .transpose()
        .map_err(|e| Fault::bad_request(e.to_string()))
}

/// A header's text, trimmed; blank is absent.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Fault::bad_request(format!("the header {name} is not UTF-8")))?
        .trim();
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use types::Secret;

    use super::*;

    fn keys(api: &str, admin: &str, fallback: bool) -> AuthConfig {
        AuthConfig {
            api_key: Secret::new(api),
            admin_api_key: Secret::new(admin),
            admin_fallback_enabled: fallback,
        }
    }

    fn role(auth: &AuthConfig, presented: &[(&'static str, &'static str)]) -> Option<Role> {
        let mut headers = HeaderMap::new();
        for (name, value) in presented {
            headers.insert(*name, value.parse().unwrap());
        }
        authenticate(auth, &headers).ok()
    }

    #[test]
    fn either_header_takes_either_key() {
        let auth = keys("api", "admin", false);
        assert_eq!(role(&auth, &[]), None);
        assert_eq!(role(&auth, &[(API_KEY, "")]), None);
        assert_eq!(role(&auth, &[(API_KEY, "ap")]), None);
        assert_eq!(role(&auth, &[(API_KEY, "api")]), Some(Role::Api));
        assert_eq!(role(&auth, &[(API_KEY, "admin")]), Some(Role::Admin));
        assert_eq!(role(&auth, &[(ADMIN_KEY, "api")]), Some(Role::Api));
        assert_eq!(role(&auth, &[(ADMIN_KEY, "no"), (API_KEY, "api")]), Some(Role::Api));
        assert_eq!(role(&auth, &[(ADMIN_KEY, "api"), (API_KEY, "admin")]), Some(Role::Admin));
    }

    #[test]
    fn an_absent_key_matches_nothing() {
        let auth = keys("", "admin", true);
        assert_eq!(role(&auth, &[(API_KEY, "")]), None);
        assert_eq!(role(&auth, &[(API_KEY, "admin")]), Some(Role::Admin));
        assert_eq!(role(&keys("", "", true), &[(API_KEY, "x")]), Some(Role::Anonymous));
    }

    #[test]
    fn the_fallback_opens_admin_routes_only_without_an_admin_key() {
        assert!(admit_admin(&keys("api", "", true), Role::Api).is_ok());
        assert!(admit_admin(&keys("api", "", false), Role::Api).is_err());
        assert!(admit_admin(&keys("api", "admin", true), Role::Api).is_err());
        assert!(admit_admin(&keys("api", "admin", true), Role::Admin).is_ok());
        assert!(admit_admin(&keys("", "", false), Role::Anonymous).is_ok());
    }
}
