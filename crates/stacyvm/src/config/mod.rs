//! Configuration: where it comes from, every key there is, what is refused, what is advised.
//!
//! The one home of environment variables.

mod env;
mod lint;
mod load;
mod redact;
mod schema;
mod section;
mod setting;
mod suggest;
mod unserved;
mod validate;
mod warm_pool;

pub use env::Environment;
pub use lint::{lint, weak_keys};
pub use load::{LoadOptions, Loaded, load, load_served};
pub use redact::shown;
pub use schema::{
    Config, DatabaseDriver, LogFormat, LogLevel, NativeStorage, PullPolicy, SpawnOverflow,
};
pub use unserved::{absent_providers, unserved};
pub use warm_pool::WarmPool;

/// Why there is no configuration to work with.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct ConfigError {
    /// Where the keys came from, if from a file.
    pub file: Option<std::path::PathBuf>,
    /// Everything that is wrong, not just the first of it.
    pub problems: Vec<String>,
}

impl ConfigError {
    fn text(&self) -> String {
        let place = match &self.file {
            Some(file) => format!("the configuration ({}) cannot be used", file.display()),
            None => "the configuration cannot be used".to_owned(),
        };
        format!("{place}:\n  {}", self.problems.join("\n  "))
    }
}

#[cfg(test)]
mod tests;
