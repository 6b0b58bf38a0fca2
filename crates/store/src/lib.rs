//! What is remembered: sandboxes, workers and the installation's own identity.
//!
//! One interface, [`Store`]; SQLite behind it (PostgreSQL comes with many hosts). Only this crate
//! sees a database library. No decisions here beyond those that must be atomic: counting against a
//! limit while inserting, and never going back in a state machine.

mod change;
mod error;
mod exec;
mod interface;
mod sqlite;

pub use error::StoreError;
pub use exec::{CANCELLED, ExecEnd, ExecKind, ExecOutput, ExecPage, ExecRecord, LOST};
pub use interface::{
    BoxFuture, Change, Counts, Earlier, InsertOutcome, Limits, ListFilter, NameOf, SpawnKey, Store,
    WorkerRecord,
};
pub use sqlite::{SqliteOptions, SqliteStore};
