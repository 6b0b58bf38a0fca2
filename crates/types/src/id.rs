//! Identifiers. Each is checked once, where it enters; a value of these types is valid.

use std::fmt;

/// Text that is not an id of the wanted kind. Says what is wrong, never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidId {
    what: &'static str,
    problem: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::parse(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A sandbox: `sb-` and 20 lower-case base32 characters when it is ours. A peer's worker may
    /// use shorter ones, so any short word of `[a-z0-9-]` is accepted.
    SandboxId,
    check_sandbox
);
text_id!(
    /// A worker: 1 to 128 printable characters without spaces or slashes.
    WorkerId,
    check_worker
);
text_id!(
    /// An exec, chosen by us or by the client: 1 to 64 characters of `[A-Za-z0-9._-]`.
    ExecId,
    check_exec
);
text_id!(
    /// The owner of a sandbox: at most 128 bytes, no slash, space or control
    /// character. Trim before parsing.
    OwnerId,
    check_owner
);
text_id!(
    /// What an owner calls a sandbox; the same rules as an owner.
    SandboxName,
    check_sandbox_name
);
text_id!(
    /// A tenant; the same rules as an owner.
    TenantId,
    check_tenant
);

/// 20 characters of 5 bits: 100 random bits, and `{port}-{id}` stays within a DNS label.
const SANDBOX_SUFFIX: usize = 20;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl SandboxId {
    /// Makes an id of 20 random bytes, five bits taken from each.
    pub fn from_random(bytes: [u8; SANDBOX_SUFFIX]) -> Self {
        let mut text = String::with_capacity(3 + SANDBOX_SUFFIX);
        text.push_str("sb-");
        text.extend(bytes.iter().map(|b| char::from(BASE32[usize::from(b & 31)])));
        Self(text)
    }
}

fn check_sandbox(text: &str) -> Result<(), InvalidId> {
    let fail = |problem| Err(InvalidId { what: "the sandbox id", problem });
    if text.is_empty() || text.len() > 57 {
        return fail("has 1 to 57 characters");
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.bytes().all(word) || text.starts_with('-') {
        return fail("has lower-case letters, digits and dashes only");
    }
    Ok(())
}

fn check_worker(text: &str) -> Result<(), InvalidId> {
    check_name("the worker id", text)
}

fn check_owner(text: &str) -> Result<(), InvalidId> {
    check_name("the owner id", text)
}

fn check_sandbox_name(text: &str) -> Result<(), InvalidId> {
    check_name("the name", text)
}

fn check_tenant(text: &str) -> Result<(), InvalidId> {
    check_name("the tenant id", text)
}

fn check_name(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let fail = |problem| Err(InvalidId { what, problem });
    if text.is_empty() {
        return fail("is empty");
    }
    if text.len() > 128 {
        return fail("is longer than 128 bytes");
    }
    if text.contains(['/', '\\']) {
        return fail("holds a slash");
    }
    if text.chars().any(|c| c == ' ' || c.is_control()) {
        return fail("holds a space or a control character");
    }
    Ok(())
}

fn check_exec(text: &str) -> Result<(), InvalidId> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err(InvalidId {
            what: "the exec id",
            problem: "has 1 to 64 letters, digits, dots, dashes and underscores",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_fit_a_dns_label_beside_a_port() {
        let id = SandboxId::from_random([255; 20]);
        assert_eq!(id.as_str(), "sb-77777777777777777777");
        assert!(format!("65535-{id}").len() <= 63);
        assert!(SandboxId::parse(id.as_str()).is_ok());
        assert!(SandboxId::parse("sb-0a1b2c3d").is_ok());
    }

    #[test]
    fn paths_are_not_ids() {
        for bad in ["", "../etc", "a/b", "-x", "SB-1", "a b", &"x".repeat(58)] {
            assert!(SandboxId::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "a/b", "a\\b", "a b", "a\u{7}b", &"x".repeat(129)] {
            assert!(OwnerId::parse(bad).is_err(), "{bad}");
        }
    }
}
