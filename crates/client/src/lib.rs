//! A typed client of the REST API. The command line and the tests use it, so it cannot rot.
//!
//! Holds no decisions: it sends what it is given and returns what the server said.

mod client;
mod content;
mod error;
mod exec;
mod execs;
mod files;
mod images;
mod sandboxes;
mod session;
mod system;

pub use client::{Client, Options};
pub use content::Content;
pub use error::Error;
pub use exec::ExecLines;
pub use images::PullLines;
pub use session::{Heard, Listener, Speaker, Topic};
pub use types::api;
