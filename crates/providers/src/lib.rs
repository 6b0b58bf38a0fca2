//! How a sandbox is made and unmade: the [`Provider`] trait and its implementations, and the store
//! of images they make sandboxes from.
//!
//! Exec, files and logs are not here: they go through the agent, over the byte stream that
//! [`Provider::connect`] opens.

mod embedded;
mod host;
pub mod images;
pub mod mock;
pub mod native;
mod provider;
mod registry;

pub use host::AgentSocket;
pub use provider::{
    AgentIo, AgentStream, CreateSpec, Liveness, PreparedImage, Provider, ProviderStats, Runtime,
};
pub use registry::Registry;
