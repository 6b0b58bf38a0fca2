//! A tree, written as a tar archive: POSIX headers, with extended ones where a field is too short.

use std::io;

use protocol::agent::{TreeEntry, TreeError, TreeKind, TreePart, TreeReader};
use protocol::worker::ArchiveFormat;
use tar::{EntryType, Header};
use types::Fault;

use super::compression::Encoder;
use super::header::{BLOCK, padding};
use super::{Input, Output};

/// The name field of a header, and its link field.
const NAME: usize = 100;
/// An archive ends with two blocks of zeros.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Reads a tree to its end and hands the archive on.
pub(super) fn from_tree(
    mut input: Input,
    mut output: Output,
    format: ArchiveFormat,
) -> Result<(), Fault> {
    let mut encoder = Encoder::new(format).map_err(failed)?;
    let mut reader = TreeReader::default();
    let mut pad = 0;
    while let Some(piece) = input.next().map_err(failed)? {
        let taken = reader.take(&piece, |part| {
            match part {
                TreePart::Entry(entry) => {
                    // What pads the content before, now that all of it has come.
                    encoder.write(&END[..std::mem::take(&mut pad)])?;
                    encoder.write(&head(&entry)?)?;
                    pad = padding(entry.size) as usize;
                }
                TreePart::Content(bytes) => encoder.write(bytes)?,
            }
            match encoder.take() {
                Some(ready) => output.send(ready).map_err(Failed::Fault),
                None => Ok(()),
            }
        });
        taken.map_err(|failed: Failed| failed.fault())?;
    }
    if !reader.is_whole() {
        return Err(Fault::unavailable("the sandbox sent half a tree"));
    }
    encoder.write(&END[..pad]).and_then(|()| encoder.write(&END)).map_err(failed)?;
    output.send(encoder.finish().map_err(failed)?)
}

fn failed(error: io::Error) -> Fault {
    Fault::unavailable("the archive broke off").caused_by(error)
}

enum Failed {
    Fault(Fault),
    Tree(TreeError),
    Io(io::Error),
}

impl Failed {
    fn fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Tree(error) => {
                Fault::unavailable("the sandbox sent a broken tree").caused_by(error)
            }
            Self::Io(error) => failed(error),
        }
    }
}

impl From<TreeError> for Failed {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The headers of an entry.
fn head(entry: &TreeEntry) -> io::Result<Vec<u8>> {
    let mut path = if entry.path.is_empty() { b".".to_vec() } else { entry.path.clone() };
    if entry.kind == TreeKind::Directory {
        path.push(b'/');
    }
    let mut records = Vec::new();
    if path.len() > NAME {
        record(&mut records, "path", &path);
    }
    if entry.link.len() > NAME {
        record(&mut records, "linkpath", &entry.link);
    }
    let (seconds, nanos) = entry.mtime;
    if nanos > 0 || seconds < 0 {
        record(&mut records, "mtime", decimal(seconds, nanos).as_bytes());
    }
    let mut out = Vec::with_capacity(3 * BLOCK);
    if !records.is_empty() {
        let mut extended = Header::new_ustar();
        extended.set_entry_type(EntryType::XHeader);
        extended.set_size(records.len() as u64);
        extended.set_mode(0o644);
        name(&mut extended, b"pax");
        extended.set_cksum();
        out.extend_from_slice(extended.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64) as usize, 0);
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        TreeKind::File => EntryType::Regular,
        TreeKind::Directory => EntryType::Directory,
        TreeKind::Symlink => EntryType::Symlink,
        TreeKind::HardLink => EntryType::Link,
    });
    name(&mut header, &path);
    if let Some(old) = header.as_ustar_mut() {
        let len = entry.link.len().min(NAME);
        old.linkname[..len].copy_from_slice(&entry.link[..len]);
    }
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    header.set_size(entry.size);
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    Ok(out)
}

fn name(header: &mut Header, path: &[u8]) {
    if let Some(fields) = header.as_ustar_mut() {
        let len = path.len().min(NAME);
        fields.name[..len].copy_from_slice(&path[..len]);
    }
}

/// Seconds with their fraction, which counts away from zero where they are negative.
fn decimal(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// `length key=value\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}
