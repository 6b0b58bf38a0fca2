//! Files with holes, in the two forms that GNU tar writes: old GNU headers and PAX 1.0.

use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom};

use ::tar::{GnuExtSparseHeader, GnuSparseHeader, Header};
use types::Fault;

use super::super::fault::from_io;
use super::entry::bounded;
use super::tar::{BLOCK, copy, corrupt, read_block, skip, skip_padding};
use super::tree::{Meta, Tree};

/// The most pieces of one file; 16 MiB of memory.
const MOST: usize = 1_000_000;

/// Where the data of a file lies in it.
pub(super) struct Map {
    /// Offset and length, in order, none over another.
    pieces: Vec<(u64, u64)>,
    real_size: u64,
}

impl Map {
    fn new(real_size: u64) -> Self {
        Self { pieces: Vec::new(), real_size }
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), Fault> {
        let end = self.pieces.last().map_or(0, |(o, l)| o + l);
        let fits = offset.checked_add(length).is_some_and(|e| e <= self.real_size);
        if offset < end || !fits || self.pieces.len() >= MOST {
            return Err(corrupt("the map of a sparse file is wrong").into());
        }
        self.pieces.push((offset, length));
        Ok(())
    }

    fn data(&self) -> u64 {
        // Can't overflow: pieces don't overlap and end within `real_size`.
        self.pieces.iter().map(|(_, length)| length).sum()
    }
}

/// Reads the map of an old GNU sparse file: four pieces in the header, more in blocks after it.
pub(super) fn read_gnu<R: BufRead>(
    input: &mut R,
    header: &Header,
    size: u64,
) -> Result<Map, Fault> {
    let bad = |e| corrupt("the map of a sparse file can't be read").caused_by(e);
    let gnu = header.as_gnu().ok_or_else(|| corrupt("a sparse file without a map"))?;
    let mut map = Map::new(bounded(gnu.real_size().map_err(bad)?)?);
    push_all(&mut map, &gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        let mut bytes = [0; BLOCK];
        read_block(input, &mut bytes)?;
        block.as_mut_bytes().copy_from_slice(&bytes);
        push_all(&mut map, block.sparse())?;
        more = block.is_extended();
        if more && block.sparse().iter().all(GnuSparseHeader::is_empty) {
            return Err(corrupt("the map of a sparse file is wrong").into());
        }
    }
    if map.data() != size {
        return Err(corrupt("the map of a sparse file is wrong").into());
    }
    Ok(map)
}

fn push_all(map: &mut Map, headers: &[GnuSparseHeader]) -> Result<(), Fault> {
    let bad = |e| corrupt("the map of a sparse file can't be read").caused_by(e);
    for piece in headers.iter().filter(|h| !h.is_empty()) {
        map.push(piece.offset().map_err(bad)?, piece.length().map_err(bad)?)?;
    }
    Ok(())
}

/// Reads the map of a PAX 1.0 sparse file: decimal lines before the data. Also says how many bytes
/// of the entry it took.
pub(super) fn read_pax<R: BufRead>(
    input: &mut R,
    real_size: u64,
    size: u64,
) -> Result<(Map, u64), Fault> {
    let mut lines = Lines { input, block: [0; BLOCK], at: BLOCK, used: 0, size };
    let count = lines.number()?;
    if count > MOST as u64 {
        return Err(corrupt("the map of a sparse file is too long").into());
    }
    let mut map = Map::new(real_size);
    for _ in 0..count {
        let (offset, length) = (lines.number()?, lines.number()?);
        map.push(offset, length)?;
    }
    let used = lines.used;
    if map.data() != size - used {
        return Err(corrupt("the map of a sparse file is wrong").into());
    }
    Ok((map, used))
}

struct Lines<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
    used: u64,
    size: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, Fault> {
        let mut n: u64 = 0;
        for _ in 0..20 {
            if self.at == BLOCK {
                if self.used + BLOCK as u64 > self.size {
                    return Err(corrupt("the map of a sparse file is cut short").into());
                }
                read_block(self.input, &mut self.block)?;
                self.used += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return Ok(n),
                b'0'..=b'9' => n = n.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
                _ => break,
            }
        }
        Err(corrupt("the map of a sparse file can't be read").into())
    }
}

/// Writes the file; `size` bytes of data follow in the input.
pub(super) fn write<R: BufRead>(
    input: &mut R,
    tree: &mut Tree,
    path: &[u8],
    meta: Meta,
    map: &Map,
    size: u64,
) -> Result<(), Fault> {
    let mut left = size;
    tree.file(path, meta, |tree, file: &mut File| {
        // Holes count too: a sandbox may fill them.
        tree.grow(map.real_size)?;
        let failed = |e| from_io("writing the image failed", e);
        for &(offset, length) in &map.pieces {
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            copy(input, length, file)?;
            left -= length;
        }
        file.set_len(map.real_size).map_err(failed)
    })?;
    skip(input, left)?;
    skip_padding(input, size)
}
