//! One line of `doctor` and of `config lint`.

use serde_json::{Value, json};

/// How much a failed check matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Pass,
    Warn,
    Fail,
}

impl Severity {
    /// Of a check that only matters for good in production.
    pub fn for_production(production: bool) -> Self {
        if production { Self::Fail } else { Self::Warn }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub severity: Severity,
    pub name: String,
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    pub fn pass(name: &str, message: &str) -> Self {
        Self {
            severity: Severity::Pass,
            name: name.to_owned(),
            message: message.to_owned(),
            fix: None,
        }
    }

    pub fn fail(name: &str, message: &str, fix: &str) -> Self {
        Self::of(false, Severity::Fail, name, message, fix)
    }

    /// PASS if `ok`, else `severity` with its advice.
    pub fn of(ok: bool, severity: Severity, name: &str, message: &str, fix: &str) -> Self {
        if ok {
            return Self::pass(name, message);
        }
        let fix = (!fix.is_empty()).then(|| fix.to_owned());
        Self { severity, name: name.to_owned(), message: message.to_owned(), fix }
    }

    /// `[PASS] name: message`, then an indented `fix:` line where there is advice.
    pub fn text(&self) -> String {
        let line = format!("[{}] {}: {}", self.severity.word(), self.name, self.message);
        match &self.fix {
            Some(fix) => format!("{line}\n  fix: {fix}"),
            None => line,
        }
    }

    pub fn json(&self) -> Value {
        let mut value = json!({
            "status": self.severity.word(),
            "name": self.name,
            "message": self.message,
        });
        if let Some(fix) = &self.fix {
            value["fix"] = fix.as_str().into();
        }
        value
    }
}

/// Whether any of them failed.
pub fn any_failed(checks: &[Check]) -> bool {
    checks.iter().any(|c| c.severity == Severity::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_the_contract_has_it() {
        assert_eq!(Check::pass("config", "fine").text(), "[PASS] config: fine");
        let warn = Check::of(false, Severity::Warn, "auth.api_key", "is not set", "set it");
        assert_eq!(warn.text(), "[WARN] auth.api_key: is not set\n  fix: set it");
        assert!(!any_failed(&[warn]));
        assert!(any_failed(&[Check::fail("a", "b", "")]));
        assert_eq!(Check::fail("a", "b", "").text(), "[FAIL] a: b");
    }
}
