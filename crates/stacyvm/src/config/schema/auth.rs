//! `auth.*`: who may do what.

use std::collections::BTreeMap;
use std::time::Duration;

use types::Secret;

use crate::config::section::section;

section! {
    /// `auth.*`. A key alone switches auth on; `enabled` demands that there is one.
    Auth {
        enabled: bool,
        api_key: Secret,
        admin_api_key: Secret,
        worker_token: Secret,
        worker_token_file: String,
        /// By worker id, exactly as written (BUG-48).
        worker_tokens: BTreeMap<String, Secret>,
        worker_signing_key: Secret,
        worker_signing_key_file: String,
        worker_signing_keys: Vec<Secret>,
        worker_revoked_token_ids: Vec<String>,
        admin_fallback_enabled: bool = true,
        admin_audit_retention: Duration,
        oidc_enabled: bool,
        oidc_issuer: String,
        oidc_audience: String,
        oidc_jwks_url: String,
        oidc_public_key: String,
        oidc_public_key_file: String,
        oidc_groups_claim: String = "groups".to_owned(),
        oidc_tenant_claim: String = "tenant_id".to_owned(),
        oidc_admin_groups: Vec<String>,
        oidc_operator_groups: Vec<String>,
        oidc_viewer_groups: Vec<String>,
    }
}

impl Auth {
    /// Whether any key is set: then every request needs one.
    pub fn has_keys(&self) -> bool {
        !self.api_key.is_empty() || !self.admin_api_key.is_empty()
    }
}
