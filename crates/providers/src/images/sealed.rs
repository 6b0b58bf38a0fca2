//! A stream that has to be what its digest says: checked as it is read, told at its end.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use types::Fault;

use super::oci::unusable;

pub(super) struct Sealed<R> {
    inner: R,
    hash: Option<Sha256>,
    hex: String,
    left: u64,
    good: bool,
}

impl<R: Read> Sealed<R> {
    pub(super) fn new(inner: R, hex: &str, size: u64) -> Self {
        Self { inner, hash: Some(Sha256::new()), hex: hex.to_owned(), left: size, good: false }
    }
}

impl<R: Read> Read for Sealed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if buf.is_empty() {
            return Ok(0);
        }
        let Some(hash) = &mut self.hash else { return self.ended() };
        if n as u64 > self.left {
            return Err(wrong("is longer than it should be"));
        }
        self.left -= n as u64;
        if n > 0 {
            hash.update(&buf[..n]);
            return Ok(n);
        }
        let found = self.hash.take().map(|h| data_encoding::HEXLOWER.encode(&h.finalize()));
        self.good = self.left == 0 && found.as_deref() == Some(&self.hex);
        self.ended()
    }
}

impl<R> Sealed<R> {
    fn ended(&self) -> io::Result<usize> {
        match (self.good, self.left) {
            (true, _) => Ok(0),
            (false, 0) => Err(wrong("does not have the digest it should have")),
            (false, _) => Err(wrong("is shorter than it should be")),
        }
    }
}

fn wrong(how: &str) -> io::Error {
    io::Error::other::<Fault>(unusable(&format!("a layer of it {how}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], hex: &str, size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Sealed::new(content, hex, size).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn only_what_was_meant_ends_well() {
        let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(b"abc"));
        assert_eq!(read(b"abc", &hex, 3).unwrap(), b"abc");
        assert!(read(b"abd", &hex, 3).is_err());
        assert!(read(b"abcd", &hex, 3).is_err());
        assert!(read(b"abc", &hex, 4).is_err());
        assert!(read(b"", &hex, 0).is_err());
    }
}
