//! The async runtime and the process's own limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// Small machines still get two: one may be busy writing while the other accepts.
const MIN_THREADS: usize = 2;

/// A runtime for work on several things at once.
pub fn multi_thread() -> Result<tokio::runtime::Runtime, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.max(MIN_THREADS))
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start", &e))
}

/// Allows as many descriptors as the system lets us have: each sandbox and each client needs some.
pub fn lift_limits() {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit { current: now.maximum, maximum: now.maximum };
        if let Err(e) = setrlimit(Resource::Nofile, most) {
            tracing::debug!(error = %e, "the number of descriptors stays as it is");
        }
    }
}
