//! Archives that were made to harm: refused or harmless, and nothing is left of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use providers::images::{Limits, Options};
use types::ErrorCode;

use crate::support::{Ground, Tar, gzip, header, names, root};

/// That it is refused, with these words, and leaves nothing, inside or outside.
async fn refused(archive: &[u8], words: &str) {
    refused_by(&Ground::new(), archive, words).await;
}

async fn refused_by(g: &Ground, archive: &[u8], words: &str) {
    let outside = beside(g);
    let fault = g.import_bytes(archive).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::BadRequest, "{}", fault.message);
    assert!(fault.message.contains(words), "{words}: {}", fault.message);
    assert!(fault.message.chars().all(|c| !c.is_control()), "{:?}", fault.message);
    g.assert_clean(1);
    assert_eq!(beside(g), outside);
}

/// What lies beside the store, where an archive might have reached.
fn beside(g: &Ground) -> Vec<String> {
    names(g.dir.path()).into_iter().filter(|name| name != "archive").collect()
}

fn limited(limits: Limits) -> Ground {
    Ground::with(&[], Options { limits, ..Options::default() })
}

#[tokio::test]
async fn paths_out_are_refused() {
    for path in ["../evil", "a/../../evil", "..", "/../evil"] {
        refused(&Tar::default().file(path, b"x").done(), "leads out").await;
    }
    refused(&Tar::default().pax(&[("path", "../evil")]).file("a", b"x").done(), "leads out").await;
    let long = Tar::default().entry(b'L', "long", "", b"../evil\0").file("a", b"x").done();
    refused(&long, "leads out").await;
    refused(&Tar::default().pax(&[("path", "a\0b")]).file("a", b"x").done(), "NUL").await;
}

#[tokio::test]
async fn an_absolute_path_is_beneath_the_root() {
    let g = Ground::new();
    let tree = g.unpacked(&Tar::default().file("/evil/a", b"x").done()).await;
    assert_eq!(fs::read(tree.join("evil/a")).unwrap(), b"x");
    assert!(!Path::new("/evil").exists());
}

#[tokio::test]
async fn nothing_is_written_through_a_link() {
    let g = Ground::new();
    let target = g.dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let text = target.to_str().unwrap();
    for link in [text, "..", "/", "d"] {
        let tar = Tar::default().dir("d").symlink("out", link);
        refused_by(&g, &tar.file("out/evil", b"x").done(), "goes through 'out'").await;
    }
    let deep = Tar::default().symlink("a/out", text).dir("a/out/evil").done();
    refused_by(&g, &deep, "goes through 'a/out'").await;
    assert_eq!(names(&target), [""; 0]);
}

#[tokio::test]
async fn a_later_entry_replaces_a_link_and_does_not_follow_it() {
    let g = Ground::new();
    let target = g.dir.path().join("target");
    fs::write(&target, "untouched").unwrap();
    let text = target.to_str().unwrap();
    let tree = g.unpacked(&Tar::default().symlink("a", text).file("a", b"new").done()).await;
    assert_eq!(fs::read(tree.join("a")).unwrap(), b"new");
    assert!(fs::symlink_metadata(tree.join("a")).unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), b"untouched");
    // A directory takes the place of a link too, and its mode is its own.
    let dir = g.dir.path().join("dir");
    fs::create_dir(&dir).unwrap();
    let before = fs::metadata(&dir).unwrap().mode();
    let tar = Tar::default().symlink("b", dir.to_str().unwrap()).dir("b").file("b/c", b"x");
    let tree = g.unpacked(&tar.done()).await;
    assert!(fs::symlink_metadata(tree.join("b")).unwrap().is_dir());
    assert_eq!((fs::metadata(&dir).unwrap().mode(), names(&dir).len()), (before, 0));
}

#[tokio::test]
async fn links_are_text() {
    let g = Ground::new();
    let tar = Tar::default().symlink("abs", "/etc/shadow").symlink("up", "../../../x");
    let tree = g.unpacked(&tar.symlink("dangling", "nowhere").done()).await;
    assert_eq!(fs::read_link(tree.join("abs")).unwrap(), Path::new("/etc/shadow"));
    assert_eq!(fs::read_link(tree.join("up")).unwrap(), Path::new("../../../x"));
    refused(&Tar::default().symlink("empty", "").done(), "no usable target").await;
}

#[tokio::test]
async fn hard_links_reach_only_what_came_before() {
    refused(&Tar::default().hard_link("a", "/etc/passwd").done(), "hard link").await;
    refused(&Tar::default().hard_link("a", "../../etc/passwd").done(), "leads out").await;
    refused(&Tar::default().hard_link("a", "later").file("later", b"x").done(), "before it").await;
    refused(&Tar::default().dir("d").hard_link("a", "d").done(), "not a file").await;
    refused(&Tar::default().hard_link("a", "").done(), "names no file").await;
    let through = Tar::default().symlink("out", "/etc").hard_link("a", "out/passwd");
    refused(&through.done(), "goes through 'out'").await;
    // A link to a link is the link, not what it points to.
    let g = Ground::new();
    let tar = Tar::default().symlink("s", "/etc/passwd").hard_link("h", "s");
    let tree = g.unpacked(&tar.done()).await;
    assert!(fs::symlink_metadata(tree.join("h")).unwrap().is_symlink());
}

#[tokio::test]
async fn devices_are_left_out() {
    let g = Ground::new();
    let tar = Tar::default().file("a", b"x").entry(b'3', "null", "", b"");
    let tar =
        tar.entry(b'4', "sda", "", b"").entry(b'6', "pipe", "", b"").entry(b'Q', "q", "", b"");
    let info = g.import_bytes(&tar.done()).await.unwrap();
    let notes =
        ["1 × FIFO left out", "2 × device left out", "1 × entry of an unknown kind left out"];
    assert_eq!(info.notes, notes);
    assert_eq!(names(&g.store.layers_dir().join(&info.layers[0])), ["a"]);
}

#[tokio::test]
async fn owners_out_of_range_become_nobody_without_setuid() {
    if !root() {
        println!("skipped: only root can give files away");
        return;
    }
    let g = Ground::new();
    let setuid = |path: &str, uid: u64| {
        let mut h = tar::Header::from_byte_slice(&header(b'0', path, "", 0)).clone();
        h.set_uid(uid);
        h.set_mode(0o4755);
        h.set_cksum();
        h
    };
    let tar = Tar::default().header(&setuid("kept", 33)).header(&setuid("lost", 70_000));
    let tree = g.unpacked(&tar.done()).await;
    let see = |name: &str| {
        let m = fs::metadata(tree.join(name)).unwrap();
        (m.uid(), m.mode() & 0o7777)
    };
    assert_eq!(see("kept"), (33, 0o4755));
    assert_eq!(see("lost"), (65534, 0o755));
}

#[tokio::test]
async fn a_place_that_misleads_the_sandbox_is_refused() {
    refused(&Tar::default().symlink("proc", "/etc").done(), "'/proc' in it").await;
    refused(&Tar::default().file("dev", b"").done(), "'/dev' in it").await;
    refused(&Tar::default().symlink("etc", "/").done(), "'/etc' in it").await;
}

#[tokio::test]
async fn bombs_are_refused() {
    let zeros = vec![0; 8 << 20];
    let small = || Limits { total_bytes: 4 << 20, ..Limits::default() };
    let bomb = gzip(&Tar::default().file("a", &zeros).done());
    refused_by(&limited(small()), &bomb, "4 MiB").await;
    let ratio = Limits { ratio: 100, ratio_from: 1 << 20, ..Limits::default() };
    refused_by(&limited(ratio), &bomb, "bomb").await;
    // A name that is a gigabyte long is not read into memory.
    let mut huge = header(b'L', "long", "", 1 << 30).to_vec();
    huge.extend_from_slice(&[b'a'; 4096]);
    refused(&huge, "too long").await;
    let few = Limits { entries: 50, ..Limits::default() };
    let many = (0..60).fold(Tar::default(), |tar, n| tar.file(&format!("{n}"), b""));
    refused_by(&limited(few.clone()), &many.done(), "more than 50 files").await;
    // Directories that are only implied count as well.
    let deep = format!("{}x", "d/".repeat(45));
    let deep = Tar::default().file(&deep, b"").file(&deep.replace('d', "e"), b"");
    refused_by(&limited(few), &deep.done(), "more than 50 files").await;
    let path = format!("{}x", "d/".repeat(400));
    refused(&Tar::default().pax(&[("path", &path)]).file("a", b"").done(), "directories").await;
    let path = "n".repeat(300);
    refused(&Tar::default().pax(&[("path", &path)]).file("a", b"").done(), "too long").await;
}

#[tokio::test]
async fn a_sparse_claim_is_bounded() {
    let mut sparse = tar::Header::from_byte_slice(&header(b'S', "s", "", 0)).clone();
    sparse.as_gnu_mut().unwrap().set_real_size(1 << 60);
    sparse.set_cksum();
    refused(&Tar::default().header(&sparse).done(), "most an image may").await;
    let records =
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")];
    let lie = |map: &[u8]| Tar::default().pax(&records).file("s", map).done();
    refused(&lie(b"1\n5\n10\n"), "corrupt").await;
    refused(&lie(b"99999999999\n"), "corrupt").await;
    let mut block = [b'1'; 512];
    refused(&lie(&block), "corrupt").await;
    block[..4].copy_from_slice(b"x\n\n\n");
    refused(&lie(&block), "corrupt").await;
}

#[tokio::test]
async fn broken_archives_are_said_to_be() {
    let whole = Tar::default().file("a", &[1; 3000]).file("b", b"x").done();
    refused(b"hello", "neither a tar").await;
    refused(&[], "neither a tar").await;
    refused(&[7; 2000], "neither a tar").await;
    refused(&[0; 2048], "nothing in it").await;
    refused(&whole[..1000], "cut short").await;
    refused(&Tar::default().file("a", b"x").cut(), "cut short").await;
    refused(&Tar::default().file("a", b"x").pax(&[("path", "b")]).done(), "cut short").await;
    let mut flipped = whole.clone();
    flipped[512 + 3072] ^= 1;
    refused(&flipped, "checksum").await;
    let zipped = gzip(&whole);
    refused(&zipped[..zipped.len() - 6], "cut short").await;
    let mut wrong = zipped.clone();
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    refused(&wrong, "corrupt").await;
    refused(b"\x28\xb5\x2f\xfd1234", "compressed data can't be read").await;
    refused(b"BZh91AY&SY", "bzip2").await;
    // A saved image that is not told by its first names.
    let layout = Tar::default().file("x", b"").file("oci-layout", b"{}").file("index.json", b"{}");
    refused(&layout.done(), "docker export").await;
    let escape = Tar::default().pax(&[("path", "\u{1b}[2J/../x")]).file("a", b"").done();
    refused(&escape, "leads out").await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let full = Limits { reserve_bytes: u64::MAX, ..Limits::default() };
    let g = limited(full);
    let fault = g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::DiskFull);
    g.assert_clean(1);
}
