//! Workers: who they are, how fresh what we know of them is, and forgetting one.

mod freshness;
mod manage;
mod registry;

pub use manage::WorkerView;
pub(crate) use registry::{Registry, Seat};
