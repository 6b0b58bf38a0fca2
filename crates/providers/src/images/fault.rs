//! Words for what goes wrong, in one place: causes stay private, paths of the host unsaid.

use std::io;

use types::{ErrorCode, Fault};

/// Turns an error of the store's own files into a fault; `what` says what was being done.
pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Fault {
    move |e| from_io(what, e)
}

/// The same for rustix.
pub(super) fn errno(what: &'static str) -> impl Fn(rustix::io::Errno) -> Fault {
    move |e| from_io(what, e.into())
}

pub(super) fn from_io(what: &str, e: io::Error) -> Fault {
    // A reader of ours may have wrapped a fault to get it through `Read`.
    let e = match e.downcast::<Fault>() {
        Ok(fault) => return fault,
        Err(e) => e,
    };
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full().caused_by(e),
        io::ErrorKind::FileTooLarge => {
            Fault::bad_request("a file in it is larger than the image store's disk can hold")
                .caused_by(e)
        }
        _ => Fault::internal(what).caused_by(e),
    }
}

/// Reading what is imported: broken content is the caller's, the rest ours.
pub(super) fn reading(e: io::Error) -> Fault {
    let e = match e.downcast::<Fault>() {
        Ok(fault) => return fault,
        Err(e) => e,
    };
    match e.kind() {
        io::ErrorKind::UnexpectedEof => Fault::bad_request("the archive is cut short").caused_by(e),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Fault::bad_request("the archive is corrupt: its compressed data can't be read")
                .caused_by(e)
        }
        _ => Fault::internal("reading what is imported failed").caused_by(e),
    }
}

pub(super) fn disk_full() -> Fault {
    Fault::new(ErrorCode::DiskFull, "the disk that holds the image store is full")
}

/// A name out of an archive, fit for a terminal: control characters escaped, bounded.
pub(super) fn shown(path: &[u8]) -> String {
    const MOST: usize = 120;
    let cut = &path[..path.len().min(MOST)];
    let mut text: String = String::from_utf8_lossy(cut).chars().flat_map(escaped).collect();
    if cut.len() < path.len() {
        text.push('…');
    }
    text
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    // Escapes control and format characters (bidi marks too), leaves letters of any script alone.
    let keep = c.is_alphanumeric() || (' '..='~').contains(&c);
    let (plain, code) = if keep { (Some(c), None) } else { (None, Some(c.escape_unicode())) };
    plain.into_iter().chain(code.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(shown("grün/β".as_bytes()), "grün/β");
        assert!(shown(&[b'x'; 5000]).chars().count() < 200);
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(from_io("writing", full).code, ErrorCode::DiskFull);
        let quota = io::Error::from_raw_os_error(libc::EDQUOT);
        assert_eq!(from_io("writing", quota).code, ErrorCode::DiskFull);
    }
}
