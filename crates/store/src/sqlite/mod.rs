//! The store on SQLite: one writer thread with group commit, a few readers beside it.
//!
//! ```text
//! caller ──> lane (bounded) ──> writer: BEGIN, a savepoint for each closure, COMMIT, answer all
//!        └─> lane (bounded) ──> readers: each on a snapshot of its own
//!                               checkpointer: moves the log into the database, beside the writer
//! ```
//!
//! Records of living sandboxes are also kept in memory (`living`): most reads go no further.

mod checkpoint;
mod errors;
mod execs;
mod guard;
mod job;
mod lane;
mod living;
mod migrations;
mod open;
mod readers;
mod rows;
mod sandboxes;
mod statements;
mod store;
#[cfg(test)]
mod tests;
mod workers;
mod writer;

pub use store::{SqliteOptions, SqliteStore};
