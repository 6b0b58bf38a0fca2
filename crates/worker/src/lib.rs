//! Does: one owner per sandbox, journals first, then asks the provider; the client to the agent;
//! ttl; adoption after a restart. Knows no database.
//!
//! [`Worker`] is the in-process [`protocol::worker::WorkerLink`]; what happens unasked goes out
//! through a [`protocol::worker::ControlLink`] ([`NoControl`] for a one-shot run).

mod adopt;
pub mod archive;
mod config;
mod core;
mod execs;
mod files;
mod folder;
mod guest;
mod heartbeat;
mod images;
mod journal;
mod link;
mod lock;
mod outbox;
mod pool;
mod probes;
mod stats;
mod supervisor;
mod ttl;
mod worker;

pub use config::{NoControl, Providers, WorkerConfig};
pub use pool::{WarmConfig, WarmPool};
pub use worker::Worker;
