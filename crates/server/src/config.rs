//! What the server is told when it is made.

use types::Secret;
use types::clock::SharedClock;

/// Which keys open the doors. Without any key every door is open (and `site` stands guard).
#[derive(Clone, Default)]
pub struct AuthConfig {
    pub api_key: Secret,
    pub admin_api_key: Secret,
    /// Whether the API key opens admin routes while there is no admin key.
    pub admin_fallback_enabled: bool,
}

impl AuthConfig {
    /// Whether any key is asked for.
    pub fn enabled(&self) -> bool {
        !self.api_key.is_empty() || !self.admin_api_key.is_empty()
    }
}

/// Settings of the HTTP side.
#[derive(Clone)]
pub struct ServerConfig {
    pub auth: AuthConfig,
    /// Empty, or with a `*` in it: any origin.
    pub cors_allowed_origins: Vec<String>,
    /// Of a JSON body.
    pub max_body_bytes: u64,
    /// Bound to a loopback address.
    pub loopback_only: bool,
    pub version: String,
    pub clock: SharedClock,
}
