//! The agent, driven over its protocol, in processes of its own.

mod commands;
mod escapes;
mod files;
mod harness;
mod life;
mod link;
mod pid_one;
