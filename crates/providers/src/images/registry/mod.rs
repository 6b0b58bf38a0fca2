//! Registries: where they are, whom they let in, and how bytes come from them. Everything they
//! answer is hostile: bounded before it is read, and nothing until its digest is right.

mod address;
mod auth;
mod blob;
mod credentials;
mod http;
mod session;

pub(super) use address::Policy;
pub use address::Registry;
pub(super) use blob::Layers;
pub use http::Patience;
pub(super) use session::{Resolved, Session};

/// Whether a configuration's list of registries can be used.
pub fn check_registries(list: &[Registry]) -> Result<(), types::Fault> {
    Policy::new(list).map(drop)
}
