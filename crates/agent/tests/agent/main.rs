//! The agent, driven over its protocol, in processes of its own.

// The harness around the tests fails as the tests do.
#![allow(clippy::unwrap_used)]

mod commands;
mod detached;
mod escapes;
mod files;
mod harness;
mod life;
mod link;
mod pid_one;
mod terminals;
mod trees;
mod users;
