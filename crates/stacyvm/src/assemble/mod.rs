//! Puts the floors together: data directory, store, providers, worker, control, server.

mod address;
mod data_dir;
mod guard;
mod logging;
mod one_shot;
mod providers;
mod run_dir;
mod runtime;
mod server;
mod signals;
mod warm;

pub use address::hostname;
pub use data_dir::DataDir;
pub use logging::start as start_logging;
pub use one_shot::{Ended, OneShot, run_once};
pub use providers::{default_only, image_store, native_config, storage};
pub use runtime::{Runtime, lift_limits};
pub use server::{Serving, serve};
pub use signals::{Signal, Signals};
