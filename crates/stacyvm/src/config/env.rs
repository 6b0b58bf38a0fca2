//! The process environment, read once.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names that are ours without being keys: of the command line, and of tests.
const OTHER: &[&str] = &[
    "STACYVM_CONFIG",
    "STACYVM_API_KEY",
    "STACYVM_SERVER_URL",
    "STACYVM_WORKER_BOOTSTRAP_ADMIN_KEY",
    "STACYVM_FAILPOINT",
    "STACYVM_BIN",
];

const PREFIX: &str = "STACYVM_";

/// What the environment says. Empty values count as absent.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    vars: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process. Names and values that are not UTF-8 are not ours.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::from_pairs(pairs)
    }

    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { vars: pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    /// The file that `STACYVM_CONFIG` names.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.get("STACYVM_CONFIG").map(PathBuf::from)
    }

    pub fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME")
    }

    /// Docker's own file of keys to registries.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let dir = self.absolute("DOCKER_CONFIG");
        dir.or_else(|| Some(self.home()?.join(".docker"))).map(|dir| dir.join("config.json"))
    }

    /// Where this installation's data lies if the configuration does not say.
    pub fn default_data_dir(&self) -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some(PathBuf::from("/var/lib/stacyvm"));
        }
        let base = self.absolute("XDG_DATA_HOME");
        base.or_else(|| Some(self.home()?.join(".local/share"))).map(|d| d.join("stacyvm"))
    }

    /// The variables that carry our prefix and are not of the other names.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .filter(|(k, _)| k.starts_with(PREFIX) && !OTHER.contains(k))
    }

    /// XDG: a relative path is to be ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }
}

/// The variable that overrides a key.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "_"))
}
