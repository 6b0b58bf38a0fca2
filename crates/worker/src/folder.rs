//! The folder of one sandbox: made before its journal, removed after its provider let go.
//!
//! Folders of ended sandboxes are kept for new ones, a fixed number of them, each with its emptied
//! journal and a socket that listens. A file system like ext4 takes long to make and unmake files
//! that live for a moment: it does not give out again the inodes of the last minute, and walks over
//! all of them each time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use providers::AgentSocket;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use types::failpoint::hit;

/// The name of the agent's socket and of the journal: all that a folder usually holds.
const USUAL: [&str; 2] = [SOCKET, crate::journal::FILE];
const SOCKET: &str = "agent.sock";

/// Where sandboxes' folders come from and go to.
pub(crate) struct Spares {
    dir: PathBuf,
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<Spare>,
    next: u64,
}

struct Spare {
    dir: PathBuf,
    socket: AgentSocket,
}

impl Spares {
    /// Makes `most` folders in `dir`, which is its own. Blocks.
    pub fn prepare(dir: PathBuf, most: usize) -> io::Result<Self> {
        // Whatever an earlier server kept may be half emptied.
        remove_blocking(&dir)?;
        let spares = Self { dir, most, state: Mutex::default() };
        if most > 0 {
            make(&spares.dir)?;
        }
        for _ in 0..most {
            let spare = spares.name();
            make(&spare)?;
            std::fs::File::create(spare.join(crate::journal::FILE))?;
            let socket = AgentSocket::make(&spare)?;
            spares.state().ready.push(Spare { dir: spare, socket });
        }
        Ok(spares)
    }

    /// Makes a sandbox's folder, for the server's user only: whoever reaches the socket in it can
    /// run commands. With the socket, if there is one already.
    pub fn make(&self, dir: &Path) -> io::Result<Option<AgentSocket>> {
        let Some(spare) = self.pop() else { return make(dir).map(|()| None) };
        match renameat_with(CWD, &spare.dir, CWD, dir, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(spare.socket)),
            Err(rustix::io::Errno::EXIST) => {
                self.state().ready.push(spare);
                Err(io::ErrorKind::AlreadyExists.into())
            }
            // It is gone, or this file system can't: then there is the plain way.
            Err(_) => make(dir).map(|()| None),
        }
    }

    /// Removes a sandbox's folder with all that is in it.
    pub async fn remove(&self, dir: &Path) -> io::Result<()> {
        let _ = std::fs::remove_file(dir.join(SOCKET));
        match self.keep(dir) {
            Kept::Yes => Ok(()),
            Kept::No => remove(dir).await,
            Kept::NotThis(moved) => remove(&moved).await,
        }
    }

    /// In one step it is no sandbox's folder any more: a crash leaves nothing half removed.
    fn keep(&self, dir: &Path) -> Kept {
        if self.state().ready.len() >= self.most {
            return Kept::No;
        }
        let spare = self.name();
        if renameat_with(CWD, dir, CWD, &spare, RenameFlags::NOREPLACE).is_err() {
            return Kept::No;
        }
        hit("destroy.unjournaled");
        let emptied = empty(&spare).and_then(|()| AgentSocket::make(&spare));
        match emptied.is_ok_and(|socket| self.push(&spare, socket)) {
            true => Kept::Yes,
            false => Kept::NotThis(spare),
        }
    }

    fn pop(&self) -> Option<Spare> {
        self.state().ready.pop()
    }

    /// `false`: others were quicker, it is one too many.
    fn push(&self, dir: &Path, socket: AgentSocket) -> bool {
        let mut state = self.state();
        let room = state.ready.len() < self.most;
        if room {
            state.ready.push(Spare { dir: dir.to_owned(), socket });
        }
        room
    }

    fn name(&self) -> PathBuf {
        let mut state = self.state();
        state.next += 1;
        self.dir.join(state.next.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

enum Kept {
    Yes,
    No,
    /// It was moved here, and has to be removed.
    NotThis(PathBuf),
}

/// Leaves an empty journal and nothing else; an error if there is something else.
fn empty(dir: &Path) -> io::Result<()> {
    let journal = dir.join(crate::journal::FILE);
    std::fs::OpenOptions::new().write(true).open(journal)?.set_len(0)?;
    match std::fs::read_dir(dir)?.count() {
        1 => Ok(()),
        _ => Err(io::ErrorKind::DirectoryNotEmpty.into()),
    }
}

fn make(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Removes a folder with all that is in it. The usual content takes three quick calls, made inline;
/// the journal goes before the folder, so that a crash in between leaves a stray that adoption
/// removes.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn count(dir: &Path) -> usize {
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn folders_come_back_empty_and_never_more_than_there_were() {
        let temp = tempfile::tempdir().unwrap();
        let (spare, live) = (temp.path().join("spare"), temp.path().join("live"));
        std::fs::create_dir(&live).unwrap();
        let spares = Spares::prepare(spare.clone(), 2).unwrap();
        let dirs = ["a", "b", "c"].map(|name| live.join(name));
        for dir in &dirs {
            let socket = spares.make(dir).unwrap();
            assert_eq!(socket.is_some(), dir.join(SOCKET).exists());
            let again = spares.make(dir).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir).unwrap());
            assert_eq!(mode & 0o777, 0o700);
            std::fs::write(dir.join(crate::journal::FILE), "steps").unwrap();
        }
        assert_eq!((count(&spare), count(&live)), (0, 3));
        std::fs::write(dirs[0].join("something"), "else").unwrap();
        for dir in &dirs {
            spares.remove(dir).await.unwrap();
            spares.remove(dir).await.expect("removed before");
        }
        assert_eq!((count(&spare), count(&live)), (2, 0), "one held something else");
        spares.make(&dirs[0]).unwrap();
        assert_eq!(std::fs::read(dirs[0].join(crate::journal::FILE)).unwrap(), b"");
        assert_eq!(count(&dirs[0]), 2, "a journal and a socket");
    }

    #[tokio::test]
    async fn without_spares_it_works_too() {
        let temp = tempfile::tempdir().unwrap();
        let spares = Spares::prepare(temp.path().join("spare"), 0).unwrap();
        let dir = temp.path().join("a");
        spares.make(&dir).unwrap();
        spares.remove(&dir).await.unwrap();
        assert_eq!(count(temp.path()), 0);
    }
}
