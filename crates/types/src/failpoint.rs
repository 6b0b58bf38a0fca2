//! Named places where a test can end the process, to see what a crash there leaves behind.
//!
//! Compiled in with debug assertions only: a release build has none of it.

/// Ends the process at once, as kill -9 would, if the variable `STACYVM_FAILPOINT` names this
/// place.
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    imp::hit(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod imp {
    use std::sync::OnceLock;

    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();

    #[allow(clippy::disallowed_methods)] // read here so that release builds have no trace of it
    pub fn hit(name: &str) {
        let chosen = CHOSEN.get_or_init(|| std::env::var("STACYVM_FAILPOINT").ok());
        if chosen.as_deref() == Some(name) {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            std::process::abort();
        }
    }
}
