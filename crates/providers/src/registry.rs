//! The providers of one worker, by name.

use std::sync::Arc;

use types::Fault;

use crate::Provider;

pub struct Registry {
    pub providers: Vec<Arc<dyn Provider>>,
    pub default: String,
}

impl Registry {
    /// An empty name means the default one.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Provider>, Fault> {
        let name = if name.is_empty() { &self.default } else { name };
        self.providers.iter().find(|p| p.name() == name).ok_or_else(|| {
            let known = self.names().join(", ");
            Fault::bad_request(format!("no such provider here; there are: {known}"))
        })
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.providers.iter().map(|p| p.name()).collect()
    }

    pub fn default(&self) -> &str {
        &self.default
    }
}
