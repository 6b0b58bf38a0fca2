//! A tar archive, read as a tree. Everything in it is hostile.

use std::io::Read;

use protocol::agent::{TREE_PATH, TreeEntry, TreeKind};
use types::Fault;

use super::header::{self, Pending, padding, skip, unreadable};
use super::{PIECE, broken};

/// Bytes behind the end marker: padding of a tape's record, and then some.
const BEHIND: u64 = 1 << 20;
/// The years that every Linux file system can store.
const MTIME: (i64, i64) = (-(1 << 31), 1 << 33);

/// Reads a tar archive without compression to its end, and hands the tree on in pieces.
///
/// Devices and FIFOs are left out, sparse forms refused. Paths go on as they are: whoever opens them
/// keeps to its directory.
pub(super) fn to_tree(
    mut input: impl Read,
    send: &mut dyn FnMut(Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut pending = Pending::default();
    let mut out = Vec::with_capacity(2 * PIECE);
    while let Some(header) = header::next(&mut input)? {
        let size = header.entry_size().map_err(unreadable)?;
        match header.entry_type().as_byte() {
            b'L' => pending.path = Some(header::text(&mut input, size)?),
            b'K' => pending.link = Some(header::text(&mut input, size)?),
            b'x' => pending.extend(&header::small(&mut input, size)?)?,
            // For all that follow: comments in practice.
            b'g' => drop(header::small(&mut input, size)?),
            _ => {
                let pending = std::mem::take(&mut pending);
                one(&mut input, &header, size, pending, &mut out, send)?;
            }
        }
        if out.len() >= PIECE {
            send(std::mem::take(&mut out))?;
        }
    }
    if pending != Pending::default() {
        return Err(broken("the archive ends after an extended header"));
    }
    send(out)?;
    let behind = std::io::copy(&mut input.by_ref().take(BEHIND), &mut std::io::sink());
    if behind.map_err(unreadable)? == BEHIND {
        return Err(broken("there is more behind the end of the archive"));
    }
    Ok(())
}

fn one(
    input: &mut impl Read,
    header: &tar::Header,
    plain_size: u64,
    mut pending: Pending,
    out: &mut Vec<u8>,
    send: &mut dyn FnMut(Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let size = pending.size.unwrap_or(plain_size);
    if size > i64::MAX as u64 / 2 {
        return Err(broken("a size is absurd"));
    }
    let path = pending.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
    let link = pending.link.take();
    let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
    let link = link.unwrap_or_default();
    if path.len() > TREE_PATH || link.len() > TREE_PATH {
        return Err(broken("a path is too long"));
    }
    let kind = match header.entry_type().as_byte() {
        // Before POSIX, a file whose name ends with a slash was a directory.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Some(TreeKind::Directory),
        b'0' | 0 | b'7' => Some(TreeKind::File),
        b'1' => Some(TreeKind::HardLink),
        b'2' => Some(TreeKind::Symlink),
        b'5' => Some(TreeKind::Directory),
        b'S' => return Err(header::sparse()),
        _ => None,
    };
    let content = if kind == Some(TreeKind::File) { size } else { 0 };
    if let Some(kind) = kind {
        let (uid, gid) = pending.owner(header);
        let plain = || (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0);
        let mtime = pending.mtime.unwrap_or_else(plain);
        let mtime = (mtime.0.clamp(MTIME.0, MTIME.1), mtime.1);
        let mode = header.mode().map_err(unreadable)? & 0o7777;
        let keeps_link = matches!(kind, TreeKind::HardLink | TreeKind::Symlink);
        let link = if keeps_link { link } else { Vec::new() };
        TreeEntry { kind, mode, uid, gid, mtime, size: content, path, link }.encode(out);
    }
    let mut left = content;
    while left > 0 {
        let at = out.len();
        let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        out.resize(at + len, 0);
        input.read_exact(&mut out[at..]).map_err(unreadable)?;
        left -= len as u64;
        if out.len() >= PIECE {
            send(std::mem::take(out))?;
        }
    }
    skip(input, size - content + padding(size))
}
