//! A whole control plane in one test: fakes, faults and `wait_for`.

mod store;
mod system;
mod worker;

pub use store::{MemoryStore, StoreAct};
pub use system::{System, code, config, input, row, wait_until};
pub use system::{beat, fact, report};
pub use worker::{Act, FakeWorker, Script};
