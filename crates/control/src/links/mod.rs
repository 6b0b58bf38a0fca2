//! The ways to workers, and the way back. The RPC pair will live beside the in-process one.

mod registry;
mod uplink;

pub(crate) use registry::Links;
pub(crate) use uplink::Uplink;
