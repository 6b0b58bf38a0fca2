//! The tar reader: walks headers itself, since every length in them has to be bounded before it is
//! believed. The format's fields are read by the `tar` crate.

use std::fs::File;
use std::io::{BufRead, Read, Write};

use ::tar::Header;
use types::Fault;

use super::super::fault::{from_io, reading, shown};
use super::super::limits::HEADER_BYTES;
use super::entry::{Entry, Kind, Pending};
use super::layer::mark;
use super::path::relative;
use super::sparse;
use super::tree::Tree;

pub(super) const BLOCK: usize = 512;

/// Unpacks everything up to the end marker.
pub(super) fn unpack<R: BufRead>(input: &mut R, tree: &mut Tree) -> Result<(), Fault> {
    let mut pending = Pending::default();
    let mut first = true;
    while let Some(header) = next_header(input, first, tree.is_layer())? {
        first = false;
        let size = header.entry_size().map_err(|e| corrupt("a size can't be read").caused_by(e))?;
        match header.entry_type().as_byte() {
            b'L' => pending.path = Some(read_text(input, size)?),
            b'K' => pending.link = Some(read_text(input, size)?),
            b'x' => pending.extend(&read_small(input, size)?)?,
            // For all that follow: comments in practice (git archive).
            b'g' => drop(read_small(input, size)?),
            _ => place(input, Entry::new(&header, size, std::mem::take(&mut pending))?, tree)?,
        }
    }
    if pending != Pending::default() {
        return Err(corrupt("it ends after an extended header").into_cut());
    }
    Ok(())
}

fn place<R: BufRead>(input: &mut R, entry: Entry, tree: &mut Tree) -> Result<(), Fault> {
    let path = relative(&entry.path, tree.limits())?;
    if tree.is_layer()
        && let Some(mark) = mark(&path)
    {
        tree.hide(mark)?;
        skip(input, entry.size)?;
        return skip_padding(input, entry.size);
    }
    // The root is a directory, however an archive names it.
    let kind =
        if path.is_empty() && entry.kind == Kind::Directory { Kind::Nothing } else { entry.kind };
    match kind {
        Kind::File => {
            let padded = entry.size;
            tree.file(&path, entry.meta, |tree, file| {
                tree.grow(entry.size)?;
                copy(input, entry.size, file)
            })?;
            return skip_padding(input, padded);
        }
        Kind::SparseGnu(header) => {
            let map = sparse::read_gnu(input, &header, entry.size)?;
            return sparse::write(input, tree, &path, entry.meta, &map, entry.size);
        }
        Kind::SparsePax(real) => {
            let (map, used) = sparse::read_pax(input, real, entry.size)?;
            return sparse::write(input, tree, &path, entry.meta, &map, entry.size - used);
        }
        Kind::Directory => tree.dir(&path, entry.meta)?,
        Kind::Symlink => tree.symlink(&path, &entry.link, entry.meta)?,
        Kind::HardLink => {
            let target = relative(&entry.link, tree.limits())?;
            tree.hard_link(&path, &target)?;
        }
        Kind::LeftOut(why) => {
            tree.note(why);
            // Not here, and what lower layers have in its place must not be seen either.
            tree.leave_out(path)?;
        }
        Kind::Nothing => {}
        Kind::Refused(why) => {
            return Err(Fault::bad_request(format!("'{}' is {why}", shown(&entry.path))));
        }
    }
    skip(input, entry.size)?;
    skip_padding(input, entry.size)
}

/// The next header, `None` at the end marker.
pub(in super::super) fn next_header<R: BufRead>(
    input: &mut R,
    first: bool,
    may_be_empty: bool,
) -> Result<Option<Header>, Fault> {
    let not_tar = || Fault::bad_request("this is neither a tar archive nor a gzip or zstd of one");
    let mut header = Header::new_old();
    let got = read_up_to(input, header.as_mut_bytes())?;
    match got {
        BLOCK => {}
        0 if first && may_be_empty => return Ok(None),
        _ if first => return Err(not_tar()),
        0 => return Err(corrupt("it ends before its end marker").into_cut()),
        _ => return Err(corrupt("it ends within a header").into_cut()),
    }
    let bytes = header.as_bytes();
    if bytes.iter().all(|&b| b == 0) {
        let nothing = first && !may_be_empty;
        return if nothing { Err(Fault::bad_request("there is nothing in it")) } else { Ok(None) };
    }
    // The checksum counts its own field as spaces.
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|&b| u32::from(b)).sum::<u32>()
        + 8 * u32::from(b' ');
    match header.cksum() {
        Ok(said) if said == sum => Ok(Some(header)),
        _ if first => Err(not_tar()),
        _ => Err(corrupt("a header's checksum is wrong").into_fault()),
    }
}

/// An archive that contradicts itself.
pub(super) struct Corrupt(&'static str);

pub(super) fn corrupt(why: &'static str) -> Corrupt {
    Corrupt(why)
}

impl Corrupt {
    pub(super) fn into_fault(self) -> Fault {
        Fault::bad_request(format!("the archive is corrupt: {}", self.0))
    }

    fn into_cut(self) -> Fault {
        Fault::bad_request(format!("the archive is cut short: {}", self.0))
    }

    pub(super) fn caused_by(self, e: std::io::Error) -> Fault {
        self.into_fault().caused_by(e)
    }
}

impl From<Corrupt> for Fault {
    fn from(c: Corrupt) -> Self {
        c.into_fault()
    }
}

/// Copies exactly `size` bytes.
pub(super) fn copy<R: BufRead>(input: &mut R, size: u64, to: &mut File) -> Result<(), Fault> {
    let mut left = size;
    while left > 0 {
        let buf = input.fill_buf().map_err(reading)?;
        if buf.is_empty() {
            return Err(corrupt("it ends within a file").into_cut());
        }
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        to.write_all(&buf[..n]).map_err(|e| from_io("writing the image failed", e))?;
        input.consume(n);
        left -= n as u64;
    }
    Ok(())
}

pub(super) fn skip<R: BufRead>(input: &mut R, size: u64) -> Result<(), Fault> {
    let mut left = size;
    while left > 0 {
        let buf = input.fill_buf().map_err(reading)?;
        if buf.is_empty() {
            return Err(corrupt("it ends within an entry").into_cut());
        }
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        input.consume(n);
        left -= n as u64;
    }
    Ok(())
}

pub(super) fn skip_padding<R: BufRead>(input: &mut R, size: u64) -> Result<(), Fault> {
    skip(input, size.next_multiple_of(BLOCK as u64) - size)
}

pub(super) fn read_block<R: BufRead>(input: &mut R, block: &mut [u8; BLOCK]) -> Result<(), Fault> {
    match read_up_to(input, block)? {
        BLOCK => Ok(()),
        _ => Err(corrupt("it ends within a header").into_cut()),
    }
}

fn read_up_to<R: Read>(input: &mut R, buf: &mut [u8]) -> Result<usize, Fault> {
    let mut got = 0;
    while got < buf.len() {
        match input.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
    Ok(got)
}

/// The content of an extended header: read into memory, so bounded.
pub(in super::super) fn read_small<R: BufRead>(input: &mut R, size: u64) -> Result<Vec<u8>, Fault> {
    if size > HEADER_BYTES {
        return Err(Fault::bad_request("an extended header in the archive is too long"));
    }
    let mut bytes = vec![0; usize::try_from(size).expect("bounded above")];
    if read_up_to(input, &mut bytes)? < bytes.len() {
        return Err(corrupt("it ends within a header").into_cut());
    }
    skip_padding(input, size)?;
    Ok(bytes)
}

/// A long name: ends at its first NUL.
pub(in super::super) fn read_text<R: BufRead>(input: &mut R, size: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = read_small(input, size)?;
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    Ok(bytes)
}
