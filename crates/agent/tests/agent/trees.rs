//! Whole directories, out and in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use protocol::agent::{
    AgentErrorCode as Code, Request, TreeEntry, TreeError, TreeKind, TreePart, TreeReader,
};

use crate::harness::*;

fn pack(client: &mut Client, path: &str) -> Vec<u8> {
    let packed = client.call(&Request::Pack { path: path.into() });
    let wire = packed.out.clone();
    packed.done();
    wire
}

fn unpack(client: &mut Client, path: &str, wire: &[u8]) -> Result {
    let call = client.begin(&Request::Unpack { path: path.into() });
    for piece in wire.chunks(30_000) {
        client.data(call, piece);
    }
    client.eof(call);
    client.finish(call)
}

fn entry(kind: TreeKind, path: &str, link: &str, size: u64) -> TreeEntry {
    let (mode, mtime) = (0o644, (1_000_000_000, 7));
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    TreeEntry { kind, mode, uid, gid, mtime, size, path: path.into(), link: link.into() }
}

fn wire(entries: &[(TreeEntry, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in entries {
        entry.encode(&mut out);
        out.extend_from_slice(content);
    }
    out
}

fn entries(wire: &[u8]) -> Vec<TreeEntry> {
    let mut all = Vec::new();
    let taken = TreeReader::default().take(wire, |part| {
        if let TreePart::Entry(entry) = part {
            all.push(entry);
        }
        Ok::<_, TreeError>(())
    });
    taken.unwrap();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

#[test]
fn a_directory_comes_back_as_it_was() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let from = agent.path("workspace/from");
    fs::create_dir_all(from.join("sub/deeper")).unwrap();
    fs::write(from.join("sub/large"), vec![9; 1_000_000]).unwrap();
    fs::write(from.join("empty"), "").unwrap();
    fs::hard_link(from.join("sub/large"), from.join("again")).unwrap();
    symlink("/etc/passwd", from.join("out")).unwrap();
    symlink("sub", from.join("in")).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&from.join("sub/large"), 0o4750);
    mode(&from.join("sub/deeper"), 0o700);
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    for path in ["sub/large", "sub/deeper", "sub", ""] {
        fs::File::open(from.join(path)).unwrap().set_modified(old).unwrap();
    }
    let packed = pack(&mut client, "from");
    unpack(&mut client, "to/there", &packed).done();
    let to = agent.path("workspace/to/there");
    for path in ["sub/large", "sub/deeper", "sub", "empty", "out", "in", ""] {
        let (a, b) = (
            fs::symlink_metadata(from.join(path)).unwrap(),
            fs::symlink_metadata(to.join(path)).unwrap(),
        );
        assert_eq!((a.mode(), a.uid(), a.gid()), (b.mode(), b.uid(), b.gid()), "{path}");
        assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()), "{path}");
    }
    assert_eq!(fs::read(to.join("sub/large")).unwrap(), vec![9; 1_000_000]);
    assert_eq!(fs::read_link(to.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(inode(&to.join("again")), inode(&to.join("sub/large")));
    let mut again = entries(&pack(&mut client, "to/there"));
    let mut first = entries(&packed);
    // Which of two names comes first is the file system's choice.
    for all in [&mut first, &mut again] {
        all.retain(|e| !e.path.ends_with(b"large") && !e.path.ends_with(b"again"));
    }
    assert_eq!(again, first);
}

#[test]
fn an_unpacked_file_takes_the_place_of_another_and_keeps_to_its_directory() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let to = agent.path("workspace/to");
    fs::create_dir_all(to.join("kept")).unwrap();
    fs::write(agent.path("workspace/outside"), "untouched").unwrap();
    symlink("..", to.join("up")).unwrap();
    symlink("../outside", to.join("f")).unwrap();
    use TreeKind::{Directory, File, HardLink, Symlink};
    // A link that lies there is replaced, not followed.
    unpack(&mut client, "to", &wire(&[(entry(File, "f", "", 3), b"new")])).done();
    assert_eq!(fs::read(to.join("f")).unwrap(), b"new");
    for (what, tree, code) in [
        ("up", vec![(entry(File, "../outside", "", 1), &b"x"[..])], Code::BadRequest),
        ("up within", vec![(entry(File, "a/../../outside", "", 1), b"x")], Code::BadRequest),
        ("a link there", vec![(entry(File, "up/outside", "", 1), b"x")], Code::NotADirectory),
        (
            "a link of its own",
            vec![
                (entry(Symlink, "mine", "/", 0), b""),
                (entry(File, "mine/workspace/outside", "", 1), b"x"),
            ],
            Code::NotADirectory,
        ),
        ("a hard link out", vec![(entry(HardLink, "h", "../outside", 0), b"")], Code::BadRequest),
        ("through a link", vec![(entry(HardLink, "h", "up/outside", 0), b"")], Code::NotADirectory),
        ("to a link", vec![(entry(HardLink, "h", "up", 0), b"")], Code::NotAFile),
        (
            "a directory over a link",
            vec![(entry(Directory, "up", "", 0), b"")],
            Code::NotADirectory,
        ),
        ("a file over a directory", vec![(entry(File, "kept", "", 0), b"")], Code::NotAFile),
        ("a zero byte", vec![(entry(File, "a\0b", "", 0), b"")], Code::BadRequest),
    ] {
        let refused = unpack(&mut client, "to", &wire(&tree));
        assert_eq!(refused.error(), code, "{what}");
    }
    // An absolute path begins in the directory.
    unpack(&mut client, "to", &wire(&[(entry(File, "/abs//./f", "", 1), b"x")])).done();
    assert_eq!(fs::read(to.join("abs/f")).unwrap(), b"x");
    assert_eq!(fs::read(agent.path("workspace/outside")).unwrap(), b"untouched");
    let cut = wire(&[(entry(File, "cut", "", 9), b"half")]);
    assert_eq!(unpack(&mut client, "to", &cut).error(), Code::BadRequest);
    let names = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name());
    let hidden = names.filter(|n| n.to_string_lossy().starts_with(".stacyvm")).count();
    assert_eq!((hidden, to.join("cut").exists()), (0, false));
    assert_eq!(unpack(&mut client, "to", &[9; 64]).error(), Code::BadRequest);
}

#[test]
fn only_a_directory_is_packed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    fs::write(agent.path("workspace/f"), "x").unwrap();
    let mut refused = |path: &str| client.call(&Request::Pack { path: path.into() }).error();
    assert_eq!(refused("f"), Code::NotADirectory);
    assert_eq!(refused("none"), Code::FileNotFound);
    assert_eq!(refused(""), Code::BadRequest);
}
