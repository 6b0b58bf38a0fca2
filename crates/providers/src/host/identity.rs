//! The name under which things that outlive the server are found again: cgroups, uid ranges,
//! writable layers.

use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// One server's worker: its installation, and the folder its sandboxes live in. Two workers of one
/// installation never touch what the other made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    name: String,
    scope: String,
}

impl Identity {
    /// `kind` keeps apart providers that share both (`mock`); empty for the native one.
    pub fn new(installation: &str, sandboxes_dir: &Path, kind: &str) -> Self {
        let whole = std::fs::canonicalize(sandboxes_dir);
        let dir = whole.as_deref().unwrap_or(sandboxes_dir);
        let mut hash = Sha256::new();
        hash.update(installation.as_bytes());
        hash.update([0]);
        hash.update(dir.as_os_str().as_encoded_bytes());
        let scope = HEXLOWER.encode(&hash.finalize()[..5]);
        let word = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        let short: String = installation.chars().filter(word).take(12).collect();
        let suffix = if kind.is_empty() { String::new() } else { format!("-{kind}") };
        Self { name: format!("{short}-{scope}{suffix}"), scope }
    }

    /// A file name: the installation's first 12 characters, the scope, the kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ten hexadecimal digits of installation and folder.
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_kinds_are_kept_apart() {
        let a = Identity::new("0123456789abcdef", Path::new("/a"), "");
        let b = Identity::new("0123456789abcdef", Path::new("/b"), "");
        let mock = Identity::new("0123456789abcdef", Path::new("/a"), "mock");
        assert!(a.name().starts_with("0123456789ab-"));
        assert_ne!(a, b);
        assert_ne!(a.name(), mock.name());
        assert!(!Identity::new("../../x", Path::new("/a"), "").name().contains(['/', '.']));
    }
}
