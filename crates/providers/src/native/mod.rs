//! The built-in provider: namespaces, cgroups and an overlay, made by a spawner process.
//!
//! Here is its asynchronous side; the program that holds the namespaces is in `native/spawner`.

mod config;
mod doctor;
mod order;
mod provider;
mod remains;
mod storage;

pub use config::NativeConfig;
pub use doctor::{Check, CheckStatus, doctor};
pub(crate) use order::environment;
pub use provider::NativeProvider;
pub use remains::remove_remains;
pub use storage::StorageChoice;
