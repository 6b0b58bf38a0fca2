//! Where the server listens, and how others learn of it.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Binds; a name is resolved, and the first of its addresses that can be had is taken.
pub async fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let bare = host.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(host);
    let bound = async {
        let listener = TcpListener::bind((bare, port)).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    bound.await.map_err(|e| {
        let way_out = match e.kind() {
            ErrorKind::AddrInUse => ": another program has it; choose another server.port",
            ErrorKind::AddrNotAvailable => ": this machine has no such address; see server.host",
            ErrorKind::PermissionDenied => ": ports below 1024 need privileges; see server.port",
            _ => "",
        };
        Failure::because(&format!("cannot listen on {host}, port {port}{way_out}"), &e)
    })
}

/// Writes the address to a file, whole or not at all.
pub fn write_file(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    let mut file = std::fs::File::create(beside)?;
    writeln!(file, "{address}")?;
    std::fs::rename(beside, path).inspect_err(|_| {
        let _ = std::fs::remove_file(beside);
    })
}

/// What this machine calls itself.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
