//! The async runtime and the process's own limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;

use crate::failure::Failure;

/// Small machines still get two: one may be busy writing while the other accepts.
const MIN_THREADS: usize = 2;

/// A runtime whose end waits for no thread: a read of our stdin that nobody waits for any more, say,
/// must not keep the process, whether it ends in order or by a panic.
pub struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// For work on several things at once.
    pub fn multi_thread() -> Result<Self, Failure> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut builder = Builder::new_multi_thread();
        Self::built(builder.worker_threads(processors.max(MIN_THREADS)))
    }

    /// For work that mostly waits for one server.
    pub fn one_thread() -> Result<Self, Failure> {
        Self::built(&mut Builder::new_current_thread())
    }

    fn built(builder: &mut Builder) -> Result<Self, Failure> {
        let built = builder.enable_all().build();
        built.map(|built| Self(Some(built))).map_err(|e| Failure::because("cannot start", &e))
    }

    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.0.as_ref().expect("it is there until it is dropped").block_on(work)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
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
