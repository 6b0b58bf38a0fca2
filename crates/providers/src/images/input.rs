//! An archive as it is read: its compression undone, its length bounded, its digest taken.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use types::Fault;

use super::fault::reading;
use super::limits::Limits;

/// Large enough that a system call costs nothing beside the hash.
const BUFFER: usize = 128 << 10;

/// How zstd's first frame begins, and, with any low half byte, a frame that is to be skipped.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];
/// A frame of zstd may ask for this much memory (as a power of two), no more.
const ZSTD_WINDOW: u32 = 27;

/// Begins of compressed files that we can't read, and what undoes them.
const OTHERS: [(&[u8], &str, &str); 3] = [
    (b"BZh", "bzip2", "bunzip2"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz -d"),
    (b"PK\x03\x04", "zip", "unzip"),
];

/// Reads the plain tar.
pub(super) struct ArchiveInput<R: Read> {
    reader: BufReader<Measured<R>>,
}

type Source<R> = BufReader<Counted<Chain<Cursor<Vec<u8>>, R>>>;

enum Decoded<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

/// Counts what the compressed side gave, to know by how much it grows.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

struct Measured<R: Read> {
    inner: Decoded<R>,
    taken: Arc<AtomicU64>,
    given: u64,
    hash: Sha256,
    limits: Limits,
    /// What all archives of one image gave so far.
    spent: Arc<AtomicU64>,
}

impl<R: Read> ArchiveInput<R> {
    /// Looks at the first bytes to see which compression it has.
    pub(super) fn open(archive: R, limits: &Limits) -> Result<Self, Fault> {
        Self::open_one_of(archive, limits, Arc::default())
    }

    /// The same for one of several, whose bytes together `spent` counts against the limit.
    pub(super) fn open_one_of(
        mut archive: R,
        limits: &Limits,
        spent: Arc<AtomicU64>,
    ) -> Result<Self, Fault> {
        let mut head = Vec::with_capacity(8);
        archive.by_ref().take(8).read_to_end(&mut head).map_err(reading)?;
        for (magic, name, undo) in OTHERS {
            if head.starts_with(magic) {
                return Err(Fault::bad_request(format!(
                    "this is compressed with {name}, which can't be read; undo it first (`{undo}`) \
                     or use gzip or zstd"
                )));
            }
        }
        let (gzip, zstd) = (is_gzip(&head), is_zstd(&head));
        let taken = Arc::new(AtomicU64::new(0));
        let counted =
            Counted { inner: Cursor::new(head).chain(archive), count: Arc::clone(&taken) };
        let source = BufReader::with_capacity(BUFFER, counted);
        let inner = if gzip {
            Decoded::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if zstd {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(reading)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(reading)?;
            Decoded::Zstd(Box::new(decoder))
        } else {
            Decoded::Plain(source)
        };
        let measured =
            Measured { inner, taken, given: 0, hash: Sha256::new(), limits: limits.clone(), spent };
        Ok(Self { reader: BufReader::with_capacity(BUFFER, measured) })
    }

    /// Whether a file that begins like that would be decompressed.
    pub(super) fn is_compressed(head: &[u8]) -> bool {
        is_gzip(head) || is_zstd(head)
    }

    /// sha256 of all that was read, 64 hex digits.
    pub(super) fn into_id(self) -> String {
        data_encoding::HEXLOWER.encode(&self.reader.into_inner().hash.finalize())
    }
}

impl<R: Read> Read for ArchiveInput<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl<R: Read> BufRead for ArchiveInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.reader.consume(n);
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.inner {
            Decoded::Plain(source) => source.read(buf),
            Decoded::Gzip(decoder) => decoder.read(buf),
            Decoded::Zstd(decoder) => decoder.read(buf).map_err(undecodable),
        }?;
        self.hash.update(&buf[..n]);
        self.given += n as u64;
        let limits = &self.limits;
        let spent = self.spent.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        if spent > limits.total_bytes {
            return Err(io::Error::other(Fault::bad_request(format!(
                "the archive unpacks to more than {} MiB, the most an image may hold",
                limits.total_bytes >> 20
            ))));
        }
        let taken = self.taken.load(Ordering::Relaxed);
        if self.given > limits.ratio_from && self.given / taken.max(1) > limits.ratio {
            return Err(io::Error::other(Fault::bad_request(format!(
                "the archive grows more than {} times when unpacked: that is a bomb",
                limits.ratio
            ))));
        }
        Ok(n)
    }
}

fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

fn is_zstd(head: &[u8]) -> bool {
    let skipped = head.get(1..4) == Some(&ZSTD_SKIPPED[..]) && head[0] & 0xf0 == 0x50;
    skipped || head.starts_with(&ZSTD)
}

/// zstd's own complaints come as errors of no kind.
fn undecodable(e: io::Error) -> io::Error {
    match e.downcast::<Fault>() {
        Ok(fault) => io::Error::other(fault),
        Err(e) if e.kind() == io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, e),
        Err(e) => e,
    }
}
