//! Asks an agent to end, where nothing but its socket is known: an ordinary user has no cgroups to
//! find its processes by.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::agent::{Channel, Frame, Hello, Kind, PROTOCOL_VERSION, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use types::SandboxId;

use super::{SOCKET, connect};

/// How long an agent may take to end all that it runs.
const END_LIMIT: Duration = Duration::from_secs(8);

/// Returns when the agent has closed its connections, which it does at its very end. One that is
/// not there is no error; one that does not answer is.
pub(crate) async fn ask_to_end(dir: &Path) -> io::Result<()> {
    let asked = tokio::time::timeout(END_LIMIT, ask(dir)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The sandboxes that have a socket: all there is to find them by where there are no cgroups.
pub(crate) fn sockets_in(dir: &Path) -> BTreeSet<SandboxId> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let with_socket = entries.filter(|e| e.path().join(SOCKET).exists());
    with_socket.filter_map(|e| SandboxId::parse(e.file_name().into_string().ok()?).ok()).collect()
}

async fn ask(dir: &Path) -> io::Result<()> {
    let mut stream = match connect(dir).await {
        Ok(stream) => stream,
        Err(e) if is_nobody(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    let hello =
        Hello { version: PROTOCOL_VERSION, min_version: PROTOCOL_VERSION, ..Default::default() };
    let mut wire = Vec::new();
    for (kind, call, payload) in [
        (Kind::Hello, 0, serde_json::to_vec(&hello)?),
        (Kind::Request, 1, serde_json::to_vec(&Request::Shutdown)?),
    ] {
        Frame { kind, channel: Channel::Input, call, payload: &payload }.encode(&mut wire);
    }
    let mut ignored = [0; 4096];
    let sent = stream.write_all(&wire).await;
    while sent.is_ok() {
        match stream.read(&mut ignored).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
