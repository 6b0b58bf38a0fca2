//! An archive on its way into a sandbox, compressed or not: whatever it holds, it becomes a whole tree
//! or is refused, in pieces of a bounded size, and nothing that an agent would not take.

use std::io::Cursor;

use protocol::agent::{TREE_PATH, TreeError, TreeKind, TreePart, TreeReader};
use types::{ErrorCode, Fault};

use crate::tar_import::with_checksums;

/// The codec's own piece, the largest header, and what stood in the buffer before.
const PIECE: usize = 4 * 64 * 1024;
/// What is read of one archive: a few bytes can stand for more than there is time for.
const MOST: u64 = 4 << 20;

pub fn archive_upload(data: &[u8]) {
    unpack(data);
    let checked = with_checksums(data);
    if checked != data {
        // A changed header is refused for its checksum alone; the rest of the reader wants work.
        unpack(&checked);
    }
}

fn unpack(data: &[u8]) {
    let (mut tree, mut content, mut wanted) = (TreeReader::default(), 0, 0_u64);
    let done = worker::archive::read(Cursor::new(data.to_vec()), &mut |piece| {
        assert!(piece.len() <= PIECE, "a piece of {} bytes", piece.len());
        let taken = tree.take(&piece, |part| {
            match part {
                TreePart::Entry(entry) => {
                    assert!(entry.path.len() <= TREE_PATH && entry.link.len() <= TREE_PATH);
                    assert!(entry.mode & !0o7777 == 0);
                    assert!(entry.kind == TreeKind::File || entry.size == 0);
                    wanted = wanted.saturating_add(entry.size);
                }
                TreePart::Content(part) => content += part.len() as u64,
            }
            Ok::<_, TreeError>(())
        });
        taken.expect("what the codec makes is a tree");
        if content > MOST { Err(Fault::unavailable("enough")) } else { Ok(()) }
    });
    match done {
        Ok(()) => {
            assert!(tree.is_whole() && content == wanted);
        }
        Err(fault) if content > MOST => assert_eq!(fault.message, "enough"),
        Err(fault) => {
            assert_eq!(fault.code, ErrorCode::BadRequest, "{fault}: {:?}", fault.source);
            assert!(fault.message.chars().all(|c| !c.is_control()), "{:?}", fault.message);
            assert!(fault.message.len() < 300, "{}", fault.message);
        }
    }
}
