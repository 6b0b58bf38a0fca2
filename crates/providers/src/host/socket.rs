//! The agents' sockets: each lies in its sandbox's own folder.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fchmod, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

/// Its name in the sandbox's folder.
pub(crate) const SOCKET: &str = "agent.sock";
/// Connections that may wait for the agent's accept.
const BACKLOG: i32 = 64;
/// How long a connection may take to be taken in.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A socket that listens before there is an agent, and the first connection to it, which waits in
/// its queue.
#[derive(Debug)]
pub struct AgentSocket {
    pub(crate) listener: OwnedFd,
    pub(crate) first: OwnedFd,
}

impl AgentSocket {
    /// Makes one in a sandbox's folder, which may be moved afterwards. A few system calls on a
    /// local directory, about 150 µs.
    pub fn make(dir: &Path) -> io::Result<Self> {
        let (folder, path) = short_path(dir)?;
        let address = SocketAddrUnix::new(&path)?;
        let listener = stream_socket()?;
        // The mode of the file that bind makes; set before, so that it is never wider.
        fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
        match std::fs::remove_file(dir.join(SOCKET)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        rustix::net::bind(&listener, &address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let first = stream_socket()?;
        rustix::net::connect(&first, &address)?;
        drop(folder);
        Ok(Self { listener, first })
    }
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Connects to the agent. `WouldBlock` when its queue stays full.
pub(crate) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (folder, path) = short_path(dir)?;
    let tries = async {
        loop {
            match UnixStream::connect(&path).await {
                // A full queue: the agent is busy, not gone.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                done => return done,
            }
        }
    };
    let done = tokio::time::timeout(CONNECT_LIMIT, tries).await;
    drop(folder);
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A socket's address has at most 107 bytes; data directories may be longer. The descriptor has to
/// stay open while the path is used.
fn short_path(dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((folder, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn long_folders_work_and_the_socket_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(100)).join("y".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let _socket = AgentSocket::make(&deep).unwrap();
        let mode = std::fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        connect(&deep).await.unwrap();
        let _again = AgentSocket::make(&deep).expect("a stale socket is replaced");
        let moved = dir.path().join("moved");
        std::fs::rename(&deep, &moved).unwrap();
        connect(&moved).await.expect("a socket moves with its folder");
    }
}
