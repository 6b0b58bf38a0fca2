//! The last output of a command: bytes of both streams in the order in which they were read,
//! addressed by how many came before them.

use std::collections::VecDeque;

use protocol::agent::Channel;

/// What a change between the streams costs beside its bytes, so that a flood of single bytes is
/// bounded too.
const OVERHEAD: usize = 16;

pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    /// Where each run of one stream begins, and which it is.
    runs: VecDeque<(u64, Channel)>,
    limit: usize,
    /// Bytes that came in ever.
    total: u64,
}

impl Ring {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), runs: VecDeque::new(), limit, total: 0 }
    }

    /// How much came in ever: the offset of what comes next.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The offset of the first byte that is held.
    pub(crate) fn first(&self) -> u64 {
        self.total - self.bytes.len() as u64
    }

    /// What it holds, overhead included.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + self.runs.len() * OVERHEAD
    }

    /// Whether so little came after `pos` that more pushes nothing out that a reader there has not
    /// seen.
    pub(crate) fn is_near(&self, pos: u64) -> bool {
        pos == self.total || (self.total - pos.min(self.total) < self.half() && self.cost_ok(pos))
    }

    fn half(&self) -> u64 {
        (self.limit / 2) as u64
    }

    fn cost_ok(&self, pos: u64) -> bool {
        let behind = self.runs.partition_point(|(start, _)| *start <= pos);
        (self.runs.len() - behind) * OVERHEAD < self.limit / 4
    }

    pub(crate) fn push(&mut self, channel: Channel, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|(_, last)| *last != channel) {
            self.runs.push_back((self.total, channel));
        }
        // What would be pushed out at once is only counted.
        let room = self.limit.saturating_sub(OVERHEAD);
        let kept = &bytes[bytes.len().saturating_sub(room)..];
        let skipped = (bytes.len() - kept.len()) as u64;
        if skipped > 0 {
            self.forget();
            self.total += skipped;
            self.runs.push_back((self.total, channel));
        }
        while self.cost() + kept.len() > self.limit && !self.bytes.is_empty() {
            self.drop_first(self.cost() + kept.len() - self.limit);
        }
        if self.runs.is_empty() {
            self.runs.push_back((self.total, channel));
        }
        self.bytes.extend(kept);
        self.total += kept.len() as u64;
    }

    /// Holds nothing any more; counts on.
    pub(crate) fn forget(&mut self) {
        self.bytes = VecDeque::new();
        self.runs = VecDeque::new();
    }

    /// No more comes: gives back what was reserved for it.
    pub(crate) fn close(&mut self) {
        self.bytes.shrink_to_fit();
        self.runs.shrink_to_fit();
    }

    /// At most `wanted` bytes of the first run, and the run itself if it is then empty.
    fn drop_first(&mut self, wanted: usize) {
        let first = self.first();
        let run = self.runs.get(1).map_or(self.total, |(next, _)| *next) - first;
        let cut = wanted.min(usize::try_from(run).unwrap_or(usize::MAX)).min(self.bytes.len());
        self.bytes.drain(..cut);
        if cut as u64 == run {
            self.runs.pop_front();
        } else if let Some((start, _)) = self.runs.front_mut() {
            *start = first + cut as u64;
        }
    }

    /// A piece of one stream that begins at `pos`, at most `max` bytes of it. `None`: there is
    /// nothing, or it is not held any more.
    pub(crate) fn piece(&self, pos: u64, max: usize) -> Option<(Channel, &[u8])> {
        if pos < self.first() || pos >= self.total {
            return None;
        }
        let next = self.runs.partition_point(|(start, _)| *start <= pos);
        let (_, channel) = self.runs.get(next.checked_sub(1)?)?;
        let end = self.runs.get(next).map_or(self.total, |(start, _)| *start);
        let from = usize::try_from(pos - self.first()).ok()?;
        let len = usize::try_from(end - pos).unwrap_or(usize::MAX).min(max);
        let (front, back) = self.bytes.as_slices();
        let part = match front.get(from..) {
            Some(part) if !part.is_empty() => part,
            _ => &back[from - front.len()..],
        };
        Some((*channel, &part[..len.min(part.len())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is held, as pieces of at most `max` bytes, joined where a stream goes on.
    fn held(ring: &Ring, max: usize) -> Vec<(Channel, Vec<u8>)> {
        let mut pos = ring.first();
        let mut all: Vec<(Channel, Vec<u8>)> = Vec::new();
        while let Some((channel, piece)) = ring.piece(pos, max) {
            assert!(!piece.is_empty() && piece.len() <= max);
            pos += piece.len() as u64;
            match all.last_mut() {
                Some((last, bytes)) if *last == channel => bytes.extend(piece),
                _ => all.push((channel, piece.to_vec())),
            }
        }
        assert_eq!(pos, ring.total());
        all
    }

    #[test]
    fn the_newest_bytes_stay_with_their_streams() {
        let mut ring = Ring::new(64);
        ring.push(Channel::Out, b"abc");
        ring.push(Channel::Err, b"de");
        ring.push(Channel::Out, b"f");
        let all = [(Channel::Out, b"abc".to_vec()), (Channel::Err, b"de".to_vec())];
        assert_eq!(held(&ring, 2)[..2], all);
        assert_eq!((ring.first(), ring.total()), (0, 6));
        ring.push(Channel::Out, &[b'x'; 40]);
        assert!(ring.cost() <= 64);
        assert_eq!(ring.total(), 46);
        ring.push(Channel::Err, &[b'y'; 1000]);
        assert_eq!(held(&ring, 1000), [(Channel::Err, vec![b'y'; 48])]);
        assert_eq!((ring.first(), ring.total()), (998, 1046));
        assert!(ring.piece(997, 9).is_none() && ring.piece(1046, 9).is_none());
        ring.forget();
        assert_eq!((ring.first(), ring.total()), (1046, 1046));
    }

    #[test]
    fn bounded_and_whole_whatever_is_pushed() {
        let mut ring = Ring::new(1000);
        let (mut sent, mut seed) = (Vec::new(), 7u32);
        for _ in 0..5000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let channel = if seed & 0x100 == 0 { Channel::Out } else { Channel::Err };
            let len = if seed & 0xf000 == 0 { 1500 } else { (seed >> 20) as usize % 9 };
            let piece = vec![(seed >> 24) as u8; len];
            ring.push(channel, &piece);
            sent.extend(piece.iter().map(|b| (channel, *b)));
            assert!(ring.cost() <= 1000 && ring.bytes.capacity() <= 4096);
            let kept: Vec<_> = held(&ring, 64)
                .into_iter()
                .flat_map(|(c, bytes)| bytes.into_iter().map(move |b| (c, b)))
                .collect();
            assert_eq!(ring.total(), sent.len() as u64);
            assert_eq!(kept[..], sent[sent.len() - kept.len()..]);
        }
    }
}
