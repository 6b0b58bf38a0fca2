//! One entry of a tar: its header and what extended headers said before it, made one.

use ::tar::{Header, PaxExtensions};
use types::Fault;

use super::tar::corrupt;
use super::tree::Meta;

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) struct Pending {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    sparse: Sparse,
}

#[derive(Debug, Default, PartialEq)]
struct Sparse {
    name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    real_size: Option<u64>,
    /// The older forms, with their map in the header.
    old: bool,
}

pub(in super::super) enum Kind {
    File,
    SparseGnu(Box<Header>),
    /// With the size of the whole file.
    SparsePax(u64),
    Directory,
    Symlink,
    HardLink,
    LeftOut(&'static str),
    /// Without meaning for an image.
    Nothing,
    Refused(&'static str),
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

pub(in super::super) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
    /// Bytes that follow in the archive.
    pub size: u64,
}

impl Pending {
    /// Takes in the records of a PAX header.
    pub(in super::super) fn extend(&mut self, records: &[u8]) -> Result<(), Fault> {
        for record in PaxExtensions::new(records) {
            let record =
                record.map_err(|e| corrupt("an extended header can't be read").caused_by(e))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => self.mtime = Some(time(value)?),
                b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
                b"GNU.sparse.major" => self.sparse.major = Some(number(value)?),
                b"GNU.sparse.minor" => self.sparse.minor = Some(number(value)?),
                b"GNU.sparse.realsize" => self.sparse.real_size = Some(number(value)?),
                b"GNU.sparse.map" | b"GNU.sparse.offset" => self.sparse.old = true,
                // Extended attributes among them: none is kept.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Entry {
    pub(in super::super) fn new(
        header: &Header,
        size: u64,
        pending: Pending,
    ) -> Result<Self, Fault> {
        let bad = |e| corrupt("a header can't be read").caused_by(e);
        let Pending { path, link, size: long, uid, gid, mtime, sparse } = pending;
        let kind = kind(header, &sparse)?;
        let plain = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = match kind {
            Kind::SparsePax(_) => sparse.name.unwrap_or(plain),
            _ => plain,
        };
        // Before POSIX, a file whose name ends with a slash was a directory.
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind };
        let mtime = match mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        };
        Ok(Self {
            path,
            link: link
                .or_else(|| header.link_name_bytes().map(|l| l.into_owned()))
                .unwrap_or_default(),
            kind,
            meta: Meta {
                mode: header.mode().map_err(bad)?,
                uid: uid.map_or_else(|| header.uid().map_err(bad), Ok)?,
                gid: gid.map_or_else(|| header.gid().map_err(bad), Ok)?,
                mtime: (mtime.0.clamp(MTIME.0, MTIME.1), mtime.1),
            },
            size: bounded(long.unwrap_or(size))?,
        })
    }
}

/// The years that every Linux file system can store.
const MTIME: (i64, i64) = (-(1 << 31), 1 << 33);

fn kind(header: &Header, sparse: &Sparse) -> Result<Kind, Fault> {
    Ok(match header.entry_type().as_byte() {
        b'0' | 0 | b'7' => match (sparse.major, sparse.minor, sparse.real_size) {
            (Some(1), Some(0), Some(real)) => Kind::SparsePax(bounded(real)?),
            (None, None, _) if !sparse.old => Kind::File,
            _ => Kind::Refused("stored in a sparse form that is not understood"),
        },
        b'S' => Kind::SparseGnu(Box::new(header.clone())),
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::LeftOut("device left out"),
        b'6' => Kind::LeftOut("FIFO left out"),
        b'5' | b'D' => Kind::Directory,
        b'V' => Kind::Nothing,
        b'M' => Kind::Refused("the rest of a file that began in another volume"),
        _ => Kind::LeftOut("entry of an unknown kind left out"),
    })
}

/// Sizes that arithmetic can't overflow on.
pub(super) fn bounded(size: u64) -> Result<u64, Fault> {
    if size > i64::MAX as u64 / 2 {
        return Err(corrupt("a size is absurd").into());
    }
    Ok(size)
}

fn number(value: &[u8]) -> Result<u64, Fault> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| corrupt("a number in an extended header can't be read").into())
}

/// Decimal seconds, perhaps negative, perhaps with a fraction.
fn time(value: &[u8]) -> Result<(i64, u32), Fault> {
    let bad = || corrupt("a time in an extended header can't be read").into_fault();
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = secs.parse().map_err(|_| bad())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| bad())?;
    Ok(match (secs.starts_with('-'), nanos) {
        (true, 1..) => (whole.saturating_sub(1), 1_000_000_000 - nanos),
        _ => (whole, nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12").unwrap(), (12, 0));
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"1.0000000019").unwrap(), (1, 1));
        assert!(time(b"x").is_err() && time(b"1.x").is_err());
    }
}
