//! Control as a whole, against a worker and a store in memory that fail, hang and die on demand.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod admission;
mod adoption;
mod background;
mod destroy;
mod exec;
mod extend;
mod find;
mod history;
mod leaks;
mod reach;
mod recorded;
mod repeat;
mod spawn;
mod sqlite;
mod support;
mod vanish;
mod warm;
mod workers;
