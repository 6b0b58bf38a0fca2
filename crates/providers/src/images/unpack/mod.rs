//! Trees from the outside, written beneath one directory and nowhere else.

mod entry;
mod path;
mod remove;
mod sparse;
mod tar;
mod tree;

use std::io::{BufRead, Read};
use std::os::fd::OwnedFd;

use types::Fault;

use super::Limits;
use super::input::ArchiveInput;

pub(super) use path::relative;
pub(super) use remove::remove_tree;
pub(super) use tree::{Meta, Tree};

/// What came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// sha256 of the archive without its compression, 64 hex digits.
    pub id: String,
    /// Content of all files.
    pub size_bytes: u64,
    pub entries: u64,
    /// What was left out or changed, for people.
    pub notes: Vec<String>,
}

/// Unpacks a tar, plain or gzip, into the empty directory `root`. On failure what it wrote stays,
/// for the caller to remove with the directory.
///
/// Nothing is ever written outside `root`, whatever the archive says: each directory on the way
/// is opened by itself, without following links. Devices, FIFOs and extended attributes are left
/// out, owners above 65535 become `nobody` and lose setuid; what tries to escape is refused.
/// As an ordinary user everything belongs to that user.
pub fn unpack_archive(
    archive: impl Read,
    root: OwnedFd,
    limits: &Limits,
) -> Result<Unpacked, Fault> {
    let mut input = ArchiveInput::open(archive, limits)?;
    let mut tree = Tree::new(root, limits.clone());
    tar::unpack(&mut input, &mut tree)?;
    drain(&mut input)?;
    let summary = tree.finish()?;
    Ok(Unpacked {
        id: input.into_id(),
        size_bytes: summary.size_bytes,
        entries: summary.entries,
        notes: summary.notes,
    })
}

/// The id that unpacking would give, without unpacking.
pub(super) fn archive_id(archive: impl Read, limits: &Limits) -> Result<String, Fault> {
    let mut input = ArchiveInput::open(archive, limits)?;
    drain(&mut input)?;
    Ok(input.into_id())
}

/// Reads to the end, so that the id covers everything and the compression's own checks are made.
fn drain(input: &mut impl BufRead) -> Result<(), Fault> {
    loop {
        let n = input.fill_buf().map_err(super::fault::reading)?.len();
        if n == 0 {
            return Ok(());
        }
        input.consume(n);
    }
}
