//! Named places where a test can end the process, to see what a crash there leaves behind.
//!
//! Compiled in with debug assertions only: a release build has none of it.

/// Every place, in the order in which work comes past it. A test walks through all of them.
pub const ALL: &[&str] = &[
    // A server starts.
    "native.claimed",
    "storage.written",
    "storage.made",
    "storage.attached",
    "storage.mounted",
    "adopt.scan",
    "adopt.taken",
    "adopt.swept",
    // A sandbox is made.
    "control.inserted",
    "spawn.folder",
    "spawn.journaled",
    "spawn.prepared",
    "native.layered",
    "spawn.listening",
    "spawn.ordered",
    "spawn.created",
    "spawn.greeted",
    "spawn.running",
    "control.spawned",
    "control.answered",
    // One is taken from the warm pool.
    "pool.journaled",
    "pool.taken",
    // A command runs, a file is written.
    "exec.ordered",
    "exec.started",
    "exec.output",
    "exec.ended",
    "write.ordered",
    "write.started",
    "write.piece",
    "write.finished",
    // A sandbox is unmade.
    "control.intended",
    "destroy.journaled",
    "destroy.ended",
    "destroy.ordered",
    "destroy.released",
    "destroy.killed",
    "destroy.unjournaled",
    "destroy.removed",
    "control.destroyed",
    "control.closed",
    // An image is imported.
    "images.unpacked",
    "images.layer_placed",
    "images.manifest_placed",
    // An image of several layers is brought in, from here or from a registry.
    "pull.resolved",
    "pull.unpacked",
    "pull.placed",
    "pull.layers",
    "pull.recorded",
    "pull.named",
    // A client shows the output of a command on a terminal that is raw.
    "terminal.shown",
];

/// Ends the process at once, as kill -9 would, if the variable `STACYVM_FAILPOINT` names this
/// place. `place@file` waits there instead, as long as the file exists: for places on threads that
/// may block. `place!` panics there.
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    imp::hit(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod imp {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::time::Duration;

    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();

    #[allow(clippy::disallowed_methods)] // read here so that release builds have no trace of it
    pub fn hit(name: &str) {
        assert!(super::ALL.contains(&name), "{name} is missing in the list of places");
        let chosen = CHOSEN.get_or_init(|| std::env::var("STACYVM_FAILPOINT").ok());
        let Some(chosen) = chosen.as_deref() else { return };
        assert!(chosen.strip_suffix('!') != Some(name), "{name} was told to panic");
        match chosen.split_once('@') {
            None if chosen == name => {
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                std::process::abort();
            }
            Some((place, file)) if place == name => {
                while Path::new(file).exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            _ => {}
        }
    }
}
