//! The client to the agent inside a sandbox.
//!
//! [`Guest`] keeps at most one connection, opened when it is needed and closed when it was idle;
//! `driver` moves bytes between it and its calls. A call never waits for another: what the agent
//! sends is held per call within its credit window, and a consumer that stalls grants none.
//!
//! Whatever comes out of a sandbox is hostile: an agent that breaks the protocol loses the
//! connection, and what it can make this process hold is bounded per call.

mod call;
mod client;
mod connection;
mod driver;
mod error;
mod exec;
mod files;

pub(crate) use call::Input;
pub(crate) use client::Guest;
pub(crate) use error::{GuestError, Lost, fault_of};
pub(crate) use exec::{Feeding, Output, Said};
pub(crate) use files::Reading;
