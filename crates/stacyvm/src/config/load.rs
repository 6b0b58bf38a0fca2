//! Finds the file, puts variables over it, and checks the whole.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::env::variable;
use super::section::{Node, join};
use super::setting::{Raw, Setting};
use super::{Config, ConfigError, Environment, suggest, validate};

/// How large a configuration file may be: far beyond any real one.
const MAX_FILE: u64 = 1024 * 1024;

/// Where to look, and what was said on the command line.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Exactly this file, which must exist.
    pub file: Option<PathBuf>,
    /// Keys and values that stand above everything else.
    pub overrides: Vec<(&'static str, String)>,
}

/// A configuration that can be used.
#[derive(Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    /// The keys that somebody set, by file, variable or command line.
    pub set: BTreeSet<String>,
    /// What was ignored.
    pub warnings: Vec<String>,
}

impl Loaded {
    pub fn is_set(&self, key: &str) -> bool {
        self.set.contains(key)
    }
}

/// Reads file, variables and overrides; fills in what depends on the machine; validates.
pub fn load(options: &LoadOptions, env: &Environment) -> Result<Loaded, ConfigError> {
    let file = match options.file.clone().or_else(|| env.config_file()) {
        Some(file) => Some(file),
        None => usual_file(env),
    };
    let failed = |problems| ConfigError { file: file.clone(), problems };
    let tree = match &file {
        Some(path) => {
            parse(&read(path).map_err(|p| failed(vec![p]))?).map_err(|p| failed(vec![p]))?
        }
        None => Map::new(),
    };
    let mut pass = Pass::default();
    pass.file(&tree);
    pass.environment(env);
    for (key, value) in &options.overrides {
        pass.set(key, Raw::Text(value));
    }
    let Pass { mut config, set, warnings, mut problems } = pass;
    validate::read_secret_files(&mut config, &mut problems);
    resolve(&mut config, env, &mut problems);
    validate::validate(&config, &mut problems);
    if !problems.is_empty() {
        return Err(failed(problems));
    }
    Ok(Loaded { config, file, set, warnings })
}

/// `./stacyvm.yaml`, then `~/.stacyvm/config.yaml`: the first that exists is used alone.
fn usual_file(env: &Environment) -> Option<PathBuf> {
    let local = PathBuf::from("stacyvm.yaml");
    let home = env.home().map(|h| h.join(".stacyvm/config.yaml"));
    [Some(local), home].into_iter().flatten().find(|p| p.is_file())
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot read it: {e}"))?;
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    let size = read.map_err(|e| format!("cannot read it: {e}"))?;
    if size as u64 > MAX_FILE {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(text)
}

/// YAML into a tree. Numbers that would lose their look stay text; errors show no line, since it
/// may hold a secret.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let options = serde_saphyr::options! {
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    let tree: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| format!("it is not YAML that can be read: {e}"))?;
    match tree {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("it is not a mapping of keys".to_owned())
        }
    }
}

/// What has been gathered so far.
#[derive(Default)]
struct Pass {
    config: Config,
    set: BTreeSet<String>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Pass {
    fn file(&mut self, tree: &Map<String, Value>) {
        let paths = paths(&mut self.config);
        let mut found = Vec::new();
        walk("", tree, &paths, &mut found, &mut self.problems);
        let mut seen = BTreeSet::new();
        for (path, value) in found {
            if !seen.insert(path.clone()) {
                self.problems.push(format!("`{path}` is there twice"));
            } else {
                self.set(&path, Raw::File(value));
            }
        }
    }

    fn environment(&mut self, env: &Environment) {
        let paths = paths(&mut self.config);
        for (name, value) in env.settings() {
            match paths.iter().find(|(path, _)| variable(path) == name) {
                Some((path, false)) => self.set(path, Raw::Text(value)),
                Some((_, true)) => self.warnings.push(format!(
                    "the variable {name} is ignored: a mapping can only be set in the file"
                )),
                None => self.warnings.push(match suggest_variable(name, &paths) {
                    Some(near) => format!("the variable {name} means nothing: is it {near}?"),
                    None => format!("the variable {name} means nothing and is ignored"),
                }),
            }
        }
    }

    fn set(&mut self, path: &str, raw: Raw<'_>) {
        let mut slots = slots(&mut self.config);
        let slot = slots.iter_mut().find(|(p, _)| p == path);
        let Some((_, slot)) = slot else {
            self.problems.push(format!("`{path}` is not a key"));
            return;
        };
        if let Err(problem) = slot.set(raw) {
            self.problems.push(format!("`{path}` {problem}"));
        }
        self.set.insert(path.to_owned());
    }
}

/// Every key, with its value.
pub(super) fn slots(config: &mut Config) -> Vec<(String, &mut dyn Setting)> {
    let mut out = Vec::with_capacity(160);
    config.visit("", &mut out);
    out
}

/// Every key, and whether it is a mapping.
fn paths(config: &mut Config) -> Vec<(String, bool)> {
    slots(config).into_iter().map(|(path, slot)| (path, slot.is_map())).collect()
}

/// Collects the keys of a file, whatever their case.
fn walk<'a>(
    at: &str,
    tree: &'a Map<String, Value>,
    paths: &[(String, bool)],
    found: &mut Vec<(String, &'a Value)>,
    problems: &mut Vec<String>,
) {
    for (name, value) in tree {
        let path = join(at, &name.to_ascii_lowercase());
        if paths.iter().any(|(p, _)| *p == path) {
            if !value.is_null() {
                found.push((path, value));
            }
            continue;
        }
        let beneath = format!("{path}.");
        if !paths.iter().any(|(p, _)| p.starts_with(&beneath)) {
            problems.push(unknown(&path, paths));
            continue;
        }
        match value {
            Value::Object(map) => walk(&path, map, paths, found, problems),
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                problems.push(format!("`{path}` is a section: its keys go beneath it"));
            }
        }
    }
}

fn unknown(path: &str, paths: &[(String, bool)]) -> String {
    let sections: BTreeSet<&str> =
        paths.iter().filter_map(|(p, _)| p.rsplit_once('.').map(|(s, _)| s)).collect();
    let keys = paths.iter().map(|(p, _)| p.as_str());
    match suggest::nearest(path, keys.chain(sections)) {
        Some(near) => format!("`{path}` is not a key: did you mean `{near}`?"),
        None => format!("`{path}` is not a key (`stacyvm config show` lists them all)"),
    }
}

fn suggest_variable(name: &str, paths: &[(String, bool)]) -> Option<String> {
    let known: Vec<String> = paths.iter().map(|(p, _)| variable(p)).collect();
    // A prefix that all share is no sign of nearness.
    let bare = |t: &str| t.trim_start_matches("STACYVM_").to_owned();
    let bares: Vec<String> = known.iter().map(|k| bare(k)).collect();
    let limit_name = bare(name);
    suggest::nearest(&limit_name, bares.iter().map(String::as_str))
        .map(|near| format!("STACYVM_{near}"))
}

/// Fills in the values that depend on the machine or on other keys.
fn resolve(config: &mut Config, env: &Environment, problems: &mut Vec<String>) {
    if config.server.host.is_empty() {
        let host = if config.auth.has_keys() { "0.0.0.0" } else { "127.0.0.1" };
        config.server.host = host.to_owned();
    }
    if config.data_dir.is_empty() {
        match env.default_data_dir().as_deref().and_then(Path::to_str) {
            Some(dir) => config.data_dir = dir.to_owned(),
            None => problems.push(
                "`data_dir` is not set, and without HOME or XDG_DATA_HOME there is no default"
                    .to_owned(),
            ),
        }
    }
    if config.database.path.is_empty() {
        let path = Path::new(&config.data_dir).join("stacyvm.db");
        config.database.path = path.to_string_lossy().into_owned();
    }
    match config.images.docker_config.as_str() {
        "" => {
            let file = env.docker_config();
            let file = file.as_deref().and_then(Path::to_str).unwrap_or_default();
            config.images.docker_config = file.to_owned();
        }
        "none" => config.images.docker_config.clear(),
        _ => {}
    }
    if matches!(config.providers.default.as_str(), "" | "auto") {
        config.providers.default = "native".to_owned();
    }
}

/// As [`load`], and refuses keys that ask for what this build does not have.
pub fn load_served(options: &LoadOptions, env: &Environment) -> Result<Loaded, ConfigError> {
    let loaded = load(options, env)?;
    let refused = super::unserved(&loaded);
    if refused.is_empty() {
        return Ok(loaded);
    }
    let problems = refused.into_iter().map(|(key, text)| format!("`{key}`: {text}")).collect();
    Err(ConfigError { file: loaded.file, problems })
}
