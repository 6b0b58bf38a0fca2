//! What tar headers say before an entry, and the bounds of it: every length is bounded before it is
//! believed. The fields are read by the `tar` crate.

use std::io::Read;

use tar::{Header, PaxExtensions};
use types::Fault;

use super::broken;

pub(super) const BLOCK: usize = 512;
/// A long name, or all records of an extended header.
const MOST: u64 = 64 * 1024;
/// The owner of what belongs to nobody here.
const NOBODY: u32 = 65534;

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pending {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    uid: Option<u64>,
    gid: Option<u64>,
}

impl Pending {
    pub fn extend(&mut self, records: &[u8]) -> Result<(), Fault> {
        for record in PaxExtensions::new(records) {
            let record =
                record.map_err(|e| broken("an extended header can't be read").caused_by(e))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => self.mtime = Some(time(value)?),
                key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
                // Extended attributes among them: none is kept.
                _ => {}
            }
        }
        Ok(())
    }

    pub fn owner(&self, header: &Header) -> (u32, u32) {
        let id = |long: Option<u64>, plain: std::io::Result<u64>| {
            long.or(plain.ok()).and_then(|id| u32::try_from(id).ok()).unwrap_or(NOBODY)
        };
        (id(self.uid, header.uid()), id(self.gid, header.gid()))
    }
}

pub(super) fn sparse() -> Fault {
    broken("a file in a sparse form: pack it without --sparse")
}

/// The next header; `None` at the end marker, or at the end of the input where nothing has begun.
pub(super) fn next(input: &mut impl Read) -> Result<Option<Header>, Fault> {
    let mut block = [0; BLOCK];
    let mut got = 0;
    while got < BLOCK {
        match input.read(&mut block[got..]).map_err(unreadable)? {
            0 if got == 0 => return Err(broken("the archive ends without its end marker")),
            0 => return Err(broken("the archive is cut short")),
            n => got += n,
        }
    }
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(&block);
    // The sum is of the header with spaces in its own field.
    let own = 148..156;
    let sum: u32 = (0..BLOCK)
        .map(|at| if own.contains(&at) { u32::from(b' ') } else { u32::from(block[at]) })
        .sum();
    match header.cksum() {
        Ok(told) if told == sum => Ok(Some(header)),
        Ok(_) | Err(_) => Err(broken("this is no tar archive, or it is damaged")),
    }
}

pub(super) fn unreadable(error: std::io::Error) -> Fault {
    broken("the archive cannot be read").caused_by(error)
}

/// The content of a header of headers, with its padding.
pub(super) fn small(input: &mut impl Read, size: u64) -> Result<Vec<u8>, Fault> {
    if size > MOST {
        return Err(broken("an extended header is too long"));
    }
    let mut bytes = vec![0; size as usize];
    input.read_exact(&mut bytes).map_err(unreadable)?;
    skip(input, padding(size))?;
    Ok(bytes)
}

/// A name of a header of its own; the zeros at its end are none of it.
pub(super) fn text(input: &mut impl Read, size: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = small(input, size)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

pub(super) fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

pub(super) fn skip(input: &mut impl Read, bytes: u64) -> Result<(), Fault> {
    let skipped = std::io::copy(&mut input.take(bytes), &mut std::io::sink());
    if skipped.map_err(unreadable)? < bytes {
        return Err(broken("the archive is cut short"));
    }
    Ok(())
}

fn number(value: &[u8]) -> Result<u64, Fault> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| broken("a number in an extended header can't be read"))
}

/// Decimal seconds, perhaps negative, perhaps with a fraction.
fn time(value: &[u8]) -> Result<(i64, u32), Fault> {
    let bad = || broken("a time in an extended header can't be read");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().map_err(|_| bad())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| bad())?;
    Ok(match (seconds.starts_with('-'), nanos) {
        (true, 1..) => (whole.saturating_sub(1), 1_000_000_000 - nanos),
        _ => (whole, nanos),
    })
}
