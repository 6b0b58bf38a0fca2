//! The worker against a provider that can be told to fail, and agents that can be told to lie.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

mod adopt;
mod death;
mod destroy;
mod files;
mod guest;
mod mock;
mod pool;
mod spawn;
mod support;
mod ttl;
mod upkeep;
