//! Why the store could not answer.

use std::error::Error;

/// Never shown to clients as it is: `control` turns it into a fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Locked for longer than the busy policy waits, or shutting down. Worth a retry: 503.
    #[error("the store is busy")]
    Busy(#[source] Box<dyn Error + Send + Sync>),
    /// No room left for it: 503.
    #[error("the store is out of disk space")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// Not a database of ours, or a newer schema. Refuse to start, touch nothing.
    #[error("{0}")]
    Foreign(String),
    #[error("the store failed")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}
