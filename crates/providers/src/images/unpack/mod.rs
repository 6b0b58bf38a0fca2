//! Trees from the outside, written beneath one directory and nowhere else.

mod entry;
mod layer;
mod merged;
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

pub(super) use entry::{Entry, Kind, Pending};
pub(super) use layer::Below;
pub(super) use path::relative;
pub(super) use remove::remove_tree;
pub(super) use tar::{next_header, read_small, read_text};
pub(super) use tree::{Meta, Summary, Tree};

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

/// Unpacks one layer of an image into the empty directory `root`, over those that `below` gives.
/// Its content is the archive's; what it leans on is said in the summary.
pub(super) fn unpack_layer<R: Read>(
    input: &mut ArchiveInput<R>,
    root: OwnedFd,
    limits: &Limits,
    below: Below,
) -> Result<Summary, Fault> {
    let mut tree = Tree::layer(root, limits.clone(), below);
    tar::unpack(input, &mut tree)?;
    drain(input)?;
    tree.finish()
}

/// Unpacks an archive into the empty directory `root` as the layer above those `below`, topmost
/// first. Otherwise as [`unpack_archive`]; what hides something below is there as a whiteout.
pub fn unpack_above(
    archive: impl Read,
    root: OwnedFd,
    below: Vec<OwnedFd>,
    limits: &Limits,
) -> Result<Unpacked, Fault> {
    let mut input = ArchiveInput::open(archive, limits)?;
    let done = unpack_layer(&mut input, root, limits, Box::new(move || Ok(below)))?;
    Ok(Unpacked {
        id: input.into_id(),
        size_bytes: done.size_bytes,
        entries: done.entries,
        notes: done.notes,
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
