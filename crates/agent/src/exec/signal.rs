//! Names of signals: the same inside as for clients.

pub(crate) use types::signal::parse;
