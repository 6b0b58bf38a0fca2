//! The list of files in an archive of a saved image, so that each can be read where it lies.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use types::Fault;

use super::super::Limits;
use super::super::fault::{io, reading};
use super::super::unpack::{Entry, Kind, Pending, next_header, read_small, read_text, relative};

/// Files of a saved image: a few for each layer.
const MOST_FILES: usize = 20_000;
const BLOCK: u64 = 512;
/// A link that leads to a link.
const MOST_LINKS: u32 = 4;

/// A tar without compression, and where its files lie in it.
pub(super) struct Archive {
    file: Arc<File>,
    entries: HashMap<String, Place>,
}

enum Place {
    File {
        offset: u64,
        size: u64,
    },
    /// Another name, relative to the root.
    Link(String),
}

/// A part of a file, read by position: several may read at once.
pub(super) struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Archive {
    /// Reads all headers of the archive and none of its content.
    pub(super) fn open(file: Arc<File>, limits: &Limits) -> Result<Self, Fault> {
        let mut input = BufReader::new(&*file);
        input.seek(SeekFrom::Start(0)).map_err(io("reading the archive failed"))?;
        let mut entries = HashMap::new();
        let mut pending = Pending::default();
        let mut first = true;
        while let Some(header) = next_header(&mut input, first, false)? {
            first = false;
            let bad =
                |e| Fault::bad_request("the archive is corrupt: a size can't be read").caused_by(e);
            let size = header.entry_size().map_err(bad)?;
            match header.entry_type().as_byte() {
                b'L' => pending.path = Some(read_text(&mut input, size)?),
                b'K' => pending.link = Some(read_text(&mut input, size)?),
                b'x' => pending.extend(&read_small(&mut input, size)?)?,
                b'g' => drop(read_small(&mut input, size)?),
                _ => {
                    let entry = Entry::new(&header, size, std::mem::take(&mut pending))?;
                    let offset =
                        input.stream_position().map_err(io("reading the archive failed"))?;
                    let next = i64::try_from(entry.size.next_multiple_of(BLOCK))
                        .map_err(|e| Fault::bad_request("the archive is corrupt").caused_by(e))?;
                    place(&mut entries, entry, offset, limits)?;
                    input.seek_relative(next).map_err(reading)?;
                }
            }
            if entries.len() > MOST_FILES {
                return Err(Fault::bad_request(
                    "the archive holds too many files for a saved image",
                ));
            }
        }
        Ok(Self { file, entries })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn part(&self, name: &str) -> Result<Part, Fault> {
        let mut name = name;
        for _ in 0..MOST_LINKS {
            match self.entries.get(name) {
                Some(Place::File { offset, size }) => {
                    return Ok(Part { file: Arc::clone(&self.file), at: *offset, left: *size });
                }
                Some(Place::Link(target)) => name = target,
                None => break,
            }
        }
        Err(Fault::bad_request(format!(
            "the saved image lacks the file '{}'",
            super::super::fault::shown(name.as_bytes())
        )))
    }

    /// A small file as a whole.
    pub(super) fn small(&self, name: &str, most: u64) -> Result<Vec<u8>, Fault> {
        let part = self.part(name)?;
        if part.left > most {
            return Err(Fault::bad_request("a document of the saved image is too large"));
        }
        let mut bytes = Vec::new();
        part.take(most).read_to_end(&mut bytes).map_err(reading)?;
        Ok(bytes)
    }
}

fn place(
    entries: &mut HashMap<String, Place>,
    entry: Entry,
    offset: u64,
    limits: &Limits,
) -> Result<(), Fault> {
    let name = |path: Vec<u8>| String::from_utf8(path).ok();
    let Some(path) = name(relative(&entry.path, limits)?) else { return Ok(()) };
    let place = match entry.kind {
        Kind::File => Place::File { offset, size: entry.size },
        // Old archives name a layer that several images have by a link: `../<id>/layer.tar`.
        Kind::Symlink | Kind::HardLink => {
            let mut target: Vec<&[u8]> = match entry.kind {
                Kind::Symlink => path.as_bytes().split(|&b| b == b'/').collect(),
                _ => vec![&b""[..]],
            };
            target.pop();
            for part in entry.link.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".") {
                if part == b".." {
                    target.pop();
                } else {
                    target.push(part);
                }
            }
            let Some(target) = name(target.join(&b'/')) else { return Ok(()) };
            Place::Link(target)
        }
        _ => return Ok(()),
    };
    entries.insert(path, place);
    Ok(())
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
