//! How a sandbox is made and unmade: the [`Provider`] trait and its implementations, and the store
//! of images they make sandboxes from.
//!
//! Exec, files and logs are not here: they go through the agent, over the byte stream that
//! [`Provider::connect`] opens.

pub mod images;
mod provider;

pub use provider::{
    AgentIo, AgentStream, CreateSpec, Liveness, PreparedImage, Provider, ProviderStats, Runtime,
};
