//! The mock provider: our agent on a plain directory, isolating nothing. For tests only.
//!
//! It is journalled and adopted like the native one, and its sandboxes outlive the server.

mod provider;

pub use provider::{MockConfig, MockProvider};
