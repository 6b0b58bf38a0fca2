//! The last output of a command that nobody reads, for a later connection to attach to.

use std::collections::VecDeque;

pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    limit: usize,
    /// Bytes that came in ever; the first kept one has the offset `total - len`.
    total: u64,
}

impl Ring {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, total: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_stay() {
        let mut ring = Ring::new(8);
        ring.push(b"abc");
        ring.push(b"defghij");
        assert_eq!(ring.bytes.iter().copied().collect::<Vec<_>>(), b"cdefghij");
        ring.push(&[b'x'; 100]);
        assert_eq!((ring.bytes.len(), ring.total), (8, 110));
        assert!(ring.bytes.capacity() < 64);
    }
}
