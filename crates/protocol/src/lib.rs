//! How our programs talk. No business rules.
//!
//! [`agent`]: frames and messages between a server and the agent inside a sandbox.
//! [`spawner`]: messages between the native provider and its spawner process.
//! [`worker`]: the traits through which control and worker meet (feature `links`).

pub mod agent;
pub mod spawner;
#[cfg(feature = "links")]
pub mod worker;
