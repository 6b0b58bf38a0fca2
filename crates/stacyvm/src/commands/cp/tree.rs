//! Directories here: packed for a sandbox, and unpacked from one, whose archive is hostile.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use client::Content;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use super::progress::Progress;
use crate::failure::Failure;

/// Bytes between the packer and the network.
const BUFFER: usize = 256 * 1024;

/// A directory as a tar archive. The second says how the packing ended.
pub fn pack(from: PathBuf) -> (DuplexStream, JoinHandle<io::Result<()>>) {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let packing = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(SyncIoBridge::new(ours));
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &from)?;
        let mut pipe = archive.into_inner()?;
        pipe.shutdown()
    });
    (theirs, packing)
}

pub async fn finish(packing: JoinHandle<io::Result<()>>) -> Result<(), Failure> {
    let failed = |e: &dyn std::error::Error| Failure::because("cannot pack the directory", e);
    match packing.await {
        // Nobody read on: then that is what went wrong.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ok(done) => done.map_err(|e| failed(&e)),
        Err(error) => Err(failed(&error)),
    }
}

/// Unpacks an archive into a directory, which is made where missing. Nothing is written outside.
pub async fn unpack(mut archive: Content, to: PathBuf) -> Result<(), Failure> {
    let (theirs, mut ours) = tokio::io::duplex(BUFFER);
    let unpacking = tokio::task::spawn_blocking(move || place(SyncIoBridge::new(theirs), &to));
    let sent = super::drain(&mut archive, &mut ours, Progress::new(None)).await;
    drop(ours);
    let placed = match unpacking.await {
        Ok(placed) => placed.map_err(|e| Failure::because("cannot unpack the directory", &e)),
        Err(error) => Err(Failure::because("cannot unpack the directory", &error)),
    };
    // A disk that is full here also ends what is sent; a break there also ends what is unpacked.
    match (placed, sent) {
        (Ok(()), sent) => sent,
        (Err(_), Err(broken)) if broken.code == 1 => Err(broken),
        (Err(placed), _) => Err(placed),
    }
}

fn place(from: impl io::Read, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_mtime(true);
    // No set-id bit comes out of a sandbox.
    archive.set_preserve_permissions(false);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        // Refuses what would lead out of the directory, through links too.
        if !entry.unpack_in(to)? {
            let text = "the sandbox sent a path that leads out of the directory";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    Ok(())
}
