//! gzip and zstd, in both directions.

use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use protocol::worker::ArchiveFormat;
use types::Fault;

use super::{PIECE, broken};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A frame says how much memory it takes to be read: 8 MiB is what the usual levels need.
const WINDOW_LOG: u32 = 23;
const ZSTD_LEVEL: i32 = 3;

/// The archive without its compression.
pub(super) fn open(
    input: impl Read + 'static,
    format: Option<ArchiveFormat>,
) -> Result<Box<dyn Read>, Fault> {
    let mut input = BufReader::with_capacity(PIECE, input);
    let unreadable = |e| broken("the archive cannot be read").caused_by(e);
    let format = match format {
        Some(format) => format,
        None => {
            let head = input.fill_buf().map_err(unreadable)?;
            match head {
                head if head.starts_with(GZIP) => ArchiveFormat::Gzip,
                head if head.starts_with(ZSTD) => ArchiveFormat::Zstd,
                _ => ArchiveFormat::Tar,
            }
        }
    };
    Ok(match format {
        ArchiveFormat::Tar => Box::new(input),
        ArchiveFormat::Gzip => {
            Box::new(BufReader::with_capacity(PIECE, MultiGzDecoder::new(input)))
        }
        ArchiveFormat::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(input).map_err(unreadable)?;
            decoder.window_log_max(WINDOW_LOG).map_err(unreadable)?;
            Box::new(BufReader::with_capacity(PIECE, decoder))
        }
    })
}

/// Bytes on their way into a compressed stream.
pub(super) enum Encoder {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub fn new(format: ArchiveFormat) -> io::Result<Self> {
        Ok(match format {
            ArchiveFormat::Tar => Self::Plain(Vec::new()),
            ArchiveFormat::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            ArchiveFormat::Zstd => {
                Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?)
            }
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    /// What has come out, if that is worth a piece.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let out = match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out.get_mut(),
            Self::Zstd(out) => out.get_mut(),
        };
        (out.len() >= PIECE).then(|| std::mem::take(out))
    }

    /// The rest.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(out) => out.finish(),
            Self::Zstd(out) => out.finish(),
        }
    }
}
