//! The folder of one sandbox: made before its journal, removed after its provider let go.

use std::io;
use std::path::Path;

use types::failpoint::hit;

/// The name of the agent's socket and of the journal: all that a folder usually holds.
const USUAL: [&str; 2] = ["agent.sock", crate::journal::FILE];

/// Makes it, for the server's user only: whoever reaches the socket in it can run commands.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Removes it with all that is in it. The usual content takes three quick calls, made inline; the
/// journal goes before the folder, so that a crash in between leaves a stray that adoption removes.
pub(crate) async fn remove(dir: &Path) -> io::Result<()> {
    for name in USUAL {
        let _ = std::fs::remove_file(dir.join(name));
    }
    hit("destroy.unjournaled");
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            let dir = dir.to_owned();
            tokio::task::spawn_blocking(move || remove_blocking(&dir))
                .await
                .unwrap_or_else(|e| Err(io::Error::other(e)))
        }
    }
}

/// As [`remove`], for threads that may block.
pub(crate) fn remove_blocking(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
