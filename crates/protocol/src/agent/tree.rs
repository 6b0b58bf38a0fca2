//! How a tree of files travels in the data of one call: entries one after the other, each a header,
//! its path, its link and its content.
//!
//! ```text
//! | kind 1 | mode 4 | uid 4 | gid 4 | seconds 8 | nanos 4 | size 8 | path 2 | link 2 | path … | link … | content …
//! ```
//! Numbers are little endian; `path` and `link` are lengths, bounded before anything is gathered.

/// Bytes before an entry's path.
pub const TREE_HEADER: usize = 37;
/// The longest path, and the longest link.
pub const TREE_PATH: usize = 4095;

/// What an entry is. Only a file has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeKind {
    File,
    Directory,
    /// `link` is its text.
    Symlink,
    /// `link` is the path of an entry before it, which it is another name of.
    HardLink,
}

/// An entry. Paths are relative to the tree's directory; empty for that itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    pub kind: TreeKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of content that follow.
    pub size: u64,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
}

/// Bytes that are no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("an entry of an unknown kind")]
    Kind,
    #[error("a path that is too long")]
    Path,
    #[error("content where there can be none, or too much")]
    Size,
    #[error("a time that is none")]
    Time,
}

impl TreeEntry {
    /// Appends the header, the path and the link. Both have to be within [`TREE_PATH`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.path.len() <= TREE_PATH && self.link.len() <= TREE_PATH);
        out.push(match self.kind {
            TreeKind::File => 1,
            TreeKind::Directory => 2,
            TreeKind::Symlink => 3,
            TreeKind::HardLink => 4,
        });
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.0.to_le_bytes());
        out.extend_from_slice(&self.mtime.1.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&(self.path.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.link.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.path);
        out.extend_from_slice(&self.link);
    }
}

/// A part of a tree as it arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum TreePart<'a> {
    Entry(TreeEntry),
    /// Of the file before.
    Content(&'a [u8]),
}

/// Cuts a byte stream into the parts of a tree. Holds one header with its names at most.
#[derive(Debug, Default)]
pub struct TreeReader {
    head: Vec<u8>,
    content: u64,
}

impl TreeReader {
    /// Takes in bytes and hands their parts on. After an error the rest has no meaning.
    pub fn take<E: From<TreeError>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(TreePart<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.content > 0 {
                let len = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
                let (content, rest) = bytes.split_at(len);
                self.content -= len as u64;
                bytes = rest;
                each(TreePart::Content(content))?;
                continue;
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(self.missing()?));
            self.head.extend_from_slice(taken);
            bytes = rest;
            if self.missing()? == 0 {
                let entry = decode(&self.head)?;
                self.head.clear();
                self.content = entry.size;
                each(TreePart::Entry(entry))?;
            }
        }
        Ok(())
    }

    /// Whether an entry may end here.
    pub fn is_whole(&self) -> bool {
        self.head.is_empty() && self.content == 0
    }

    /// Bytes of the head that are still to come, as far as is known.
    fn missing(&self) -> Result<usize, TreeError> {
        if self.head.len() < TREE_HEADER {
            return Ok(TREE_HEADER - self.head.len());
        }
        let (path, link) = lengths(&self.head);
        if path > TREE_PATH || link > TREE_PATH {
            return Err(TreeError::Path);
        }
        Ok(TREE_HEADER + path + link - self.head.len())
    }
}

fn lengths(head: &[u8]) -> (usize, usize) {
    let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    (length(33), length(35))
}

fn decode(head: &[u8]) -> Result<TreeEntry, TreeError> {
    let four = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
    let (path, _) = lengths(head);
    let (path, link) = head[TREE_HEADER..].split_at(path);
    let kind = match head[0] {
        1 => TreeKind::File,
        2 => TreeKind::Directory,
        3 => TreeKind::Symlink,
        4 => TreeKind::HardLink,
        _ => return Err(TreeError::Kind),
    };
    let size = eight(25);
    if size > i64::MAX as u64 || (size > 0 && kind != TreeKind::File) {
        return Err(TreeError::Size);
    }
    let mtime = (eight(13) as i64, four(21));
    if mtime.1 >= 1_000_000_000 {
        return Err(TreeError::Time);
    }
    let (path, link) = (path.to_vec(), link.to_vec());
    Ok(TreeEntry { kind, mode: four(1), uid: four(5), gid: four(9), mtime, size, path, link })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Entries with their content.
    type Seen = Vec<(Option<TreeEntry>, Vec<u8>)>;

    fn parts(wire: &[u8], cut: usize) -> Result<Seen, TreeError> {
        let mut reader = TreeReader::default();
        let mut seen = Seen::new();
        for piece in wire.chunks(cut) {
            reader.take(piece, |part| {
                match part {
                    TreePart::Entry(entry) => seen.push((Some(entry), Vec::new())),
                    TreePart::Content(bytes) => {
                        seen.last_mut().expect("content has an entry").1.extend_from_slice(bytes);
                    }
                }
                Ok::<_, TreeError>(())
            })?;
        }
        assert!(reader.is_whole());
        Ok(seen)
    }

    proptest! {
        #[test]
        fn trees_survive_any_cutting(
            files in prop::collection::vec((
                prop::collection::vec(any::<u8>(), 0..60),
                prop::collection::vec(any::<u8>(), 0..200),
                any::<(u32, u32, u32, i64)>(),
            ), 0..6),
            cut in 1usize..90,
        ) {
            let mut wire = Vec::new();
            let mut sent = Vec::new();
            for (n, (path, content, (mode, uid, gid, seconds))) in files.into_iter().enumerate() {
                let kind = [TreeKind::File, TreeKind::Symlink, TreeKind::HardLink, TreeKind::Directory][n % 4];
                let content = if kind == TreeKind::File { content } else { Vec::new() };
                let (size, mtime, link) = (content.len() as u64, (seconds, 999_999_999), path.clone());
                let entry = TreeEntry { kind, mode, uid, gid, mtime, size, path, link };
                entry.encode(&mut wire);
                wire.extend_from_slice(&content);
                sent.push((Some(entry), content));
            }
            prop_assert_eq!(parts(&wire, cut).unwrap(), sent);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = TreeReader::default();
            let _ = reader.take(&bytes, |_| Ok::<_, TreeError>(()));
        }
    }

    #[test]
    fn long_names_are_refused_before_they_come() {
        let mut head = [0; TREE_HEADER];
        head[0] = 1;
        head[33..35].copy_from_slice(&4096_u16.to_le_bytes());
        let refused = TreeReader::default().take(&head, |_| Ok::<_, TreeError>(()));
        assert_eq!(refused, Err(TreeError::Path));
    }
}
