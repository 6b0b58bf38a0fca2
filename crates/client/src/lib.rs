//! A typed client of the REST API. The command line and the tests use it, so it cannot rot.
//!
//! Holds no decisions: it sends what it is given and returns what the server said.

mod client;
mod error;
mod exec;
mod execs;
mod files;
mod sandboxes;
mod session;
mod system;

pub use client::{Client, Options};
pub use error::Error;
pub use exec::ExecLines;
pub use session::{Heard, Listener, Speaker, Topic};
pub use types::api;
