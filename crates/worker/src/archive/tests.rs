//! Archives in both directions, by other hands' archives and by broken ones.

use std::io::Write as _;

use protocol::agent::{TreeEntry, TreeError, TreeKind, TreePart, TreeReader};

use super::*;

/// Entries with their content.
type Tree = Vec<(TreeEntry, Vec<u8>)>;

fn parsed(wire: &[u8]) -> Tree {
    let mut tree = Tree::new();
    let mut reader = TreeReader::default();
    let taken = reader.take(wire, |part| {
        match part {
            TreePart::Entry(entry) => tree.push((entry, Vec::new())),
            TreePart::Content(bytes) => tree.last_mut().unwrap().1.extend_from_slice(bytes),
        }
        Ok::<_, TreeError>(())
    });
    taken.unwrap();
    assert!(reader.is_whole());
    tree
}

async fn through(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let Codec { input, mut output } = codec;
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        for piece in bytes.chunks(1000) {
            if input.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
                return;
            }
        }
    });
    let mut out = Vec::new();
    while let Some(piece) = output.recv().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}

async fn read(bytes: &[u8]) -> Result<Tree, Fault> {
    through(unpacking(None).unwrap(), bytes).await.map(|wire| parsed(&wire))
}

fn entry(kind: TreeKind, path: &str, link: &str, content: &[u8]) -> (TreeEntry, Vec<u8>) {
    let entry = TreeEntry {
        kind,
        mode: 0o4755,
        uid: 7,
        gid: 3_000_000,
        mtime: (1_700_000_000, 5),
        size: content.len() as u64,
        path: path.into(),
        link: link.into(),
    };
    (entry, content.to_vec())
}

fn sample() -> Tree {
    let long = "n".repeat(180);
    let deep = format!("{long}/{long}/ä");
    let mut old = entry(TreeKind::Directory, "d", "", b"");
    old.0.mtime = (-5, 250_000_000);
    vec![
        old,
        entry(TreeKind::File, "d/empty", "", b""),
        entry(TreeKind::File, &deep, "", &[7; 100_001]),
        entry(TreeKind::Symlink, "link", &deep, b""),
        entry(TreeKind::HardLink, "again", &deep, b""),
    ]
}

fn wire(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in tree {
        entry.encode(&mut out);
        out.extend_from_slice(content);
    }
    out
}

#[tokio::test]
async fn a_tree_comes_back_as_it_was_in_every_format() {
    let tree = sample();
    for format in [ArchiveFormat::Tar, ArchiveFormat::Gzip, ArchiveFormat::Zstd] {
        let archive = through(packing(format).unwrap(), &wire(&tree)).await.unwrap();
        let mut back = read(&archive).await.unwrap();
        back[0].0.path.pop();
        assert_eq!(back, tree, "{format:?}");
        // Said, it is not guessed; said wrong, it is refused.
        assert!(through(unpacking(Some(format)).unwrap(), &archive).await.is_ok());
        let other =
            if format == ArchiveFormat::Gzip { ArchiveFormat::Zstd } else { ArchiveFormat::Gzip };
        assert!(through(unpacking(Some(other)).unwrap(), &archive).await.is_err());
    }
}

/// The system's tar reads what we write, and we read what it writes.
#[tokio::test]
async fn another_tar_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("a.tar"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let archive = through(packing(ArchiveFormat::Tar).unwrap(), &wire(&sample())).await.unwrap();
    std::fs::write(&file, archive).unwrap();
    let tar = |args: &[&str]| {
        let done = std::process::Command::new("tar").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    tar(&["-xf", file, "-C", out, "--no-same-owner"]);
    let long = "n".repeat(180);
    let deep = std::fs::read(format!("{out}/{long}/{long}/ä")).unwrap();
    assert_eq!(deep, [7; 100_001]);
    for form in ["gnu", "pax"] {
        tar(&["-cf", file, "-C", out, &format!("--format={form}"), "."]);
        let tree = read(&std::fs::read(file).unwrap()).await.unwrap();
        // Which of its two names comes first is the file system's choice.
        let found = tree.iter().find(|(e, _)| e.size > 0).unwrap();
        assert!(found.1 == deep, "{form}");
        assert!(tree.iter().any(|(e, _)| e.kind == TreeKind::HardLink));
    }
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    let good = through(packing(ArchiveFormat::Tar).unwrap(), &wire(&sample())).await.unwrap();
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    let mut trailing = good.clone();
    trailing.resize(good.len() + (2 << 20), 0);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&good).unwrap();
    let mut packed = packed.finish().unwrap();
    let cut_short = packed.len() / 2;
    for (what, bytes) in [
        ("nothing", &[][..]),
        ("text", &[b'x'; 600]),
        ("a cut header", &good[..300]),
        ("cut content", &good[..good.len() - 2000]),
        ("no end", &good[..good.len() - 1024]),
        ("a wrong sum", &flipped),
        ("a tail without end", &trailing),
        ("half a gzip", &packed[..cut_short]),
    ] {
        let fault = read(bytes).await.expect_err(what);
        assert_eq!(fault.code, ErrorCode::BadRequest, "{what}: {fault}");
    }
    let end = packed.len() - 5;
    packed[end] ^= 0xff;
    assert!(read(&packed).await.is_err(), "gzip's own sum");
}

/// Lengths in headers are not believed.
#[tokio::test]
async fn bug_32_hostile_lengths_are_bounded() {
    for kind in [b'L', b'K', b'x', b'g'] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(1 << 40);
        header.set_cksum();
        let fault = read(header.as_bytes()).await.expect_err("too long");
        assert!(fault.message.contains("too long"), "{fault}");
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::MAX - 1);
    header.set_cksum();
    assert!(read(header.as_bytes()).await.is_err());
    // A frame that wants more memory than any usual one.
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    packed.window_log(27).unwrap();
    packed.write_all(&vec![0; 200 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    assert!(read(&packed).await.is_err());
}

#[tokio::test]
async fn a_broken_input_says_what_broke_it() {
    let Codec { input, mut output } = unpacking(None).unwrap();
    input.send(Err(Fault::new(ErrorCode::Timeout, "it stalled"))).await.unwrap();
    let fault = output.recv().await.unwrap().unwrap_err();
    assert_eq!(fault.code, ErrorCode::Timeout);
    assert!(output.recv().await.is_none());
}
