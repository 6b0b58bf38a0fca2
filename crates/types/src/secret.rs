//! A text that must not be printed.

/// A secret: no Debug, Display or Serialize. Read it with [`Secret::reveal`], where it is used.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares without telling, by the time it takes, where the first difference is.
    pub fn matches(&self, other: &str) -> bool {
        let (a, b) = (self.0.as_bytes(), other.as_bytes());
        let mut diff = usize::from(a.len() != b.len());
        for (i, byte) in b.iter().enumerate() {
            diff |= usize::from(a.get(i).copied().unwrap_or(0) ^ byte);
        }
        std::hint::black_box(diff) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn matches_only_itself() {
        let s = Secret::new("key");
        assert!(s.matches("key"));
        for other in ["", "ke", "keys", "kez", "key\0"] {
            assert!(!s.matches(other), "{other:?}");
        }
        assert!(Secret::default().matches(""));
    }
}
