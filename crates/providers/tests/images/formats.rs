//! What honest archivers write.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use crate::support::{Ground, Tar, names};

#[tokio::test]
async fn long_names_sparse_files_and_links_of_gnu_tar() {
    for format in ["gnu", "pax", "ustar"] {
        let g = Ground::new();
        let from = g.dir.path().join("from");
        let long = if format == "ustar" { "d".repeat(90) } else { "d".repeat(200) };
        fs::create_dir_all(from.join(&long)).unwrap();
        fs::write(from.join(&long).join("größe"), "x").unwrap();
        fs::hard_link(from.join(&long).join("größe"), from.join("hard")).unwrap();
        std::os::unix::fs::symlink(format!("{long}/größe"), from.join("soft")).unwrap();
        fs::set_permissions(from.join(&long), fs::Permissions::from_mode(0o2750)).unwrap();
        let sparse = fs::File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        for n in 0..40u64 {
            sparse.write_all_at(&[n as u8 + 1; 700], n * (1 << 20) + 9).unwrap();
        }
        let tar = g.dir.path().join("a.tar");
        let mut pack = Command::new("tar");
        pack.arg("--sparse").arg(format!("--format={format}"));
        if format == "ustar" {
            pack = Command::new("tar");
            pack.arg("--format=ustar");
        }
        let packed = pack.arg("-cf").arg(&tar).arg("-C").arg(&from).arg(".").status().unwrap();
        assert!(packed.success(), "{format}");
        let info = g.import(&tar, "a").await.unwrap();
        let tree = g.store.layers_dir().join(&info.layers[0]);
        assert_eq!(names(&tree), names(&from), "{format}");
        assert_eq!(fs::read(tree.join("soft")).unwrap(), b"x");
        let ino = |name: &str| fs::metadata(tree.join(name)).unwrap().ino();
        assert_eq!(ino("hard"), ino("soft"), "{format}");
        let same = fs::read(tree.join("sparse")).unwrap() == fs::read(from.join("sparse")).unwrap();
        assert!(same, "{format}: the sparse file's content");
        if format != "ustar" {
            let blocks = fs::metadata(tree.join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 8 << 20, "{format}: holes stay holes, {blocks} blocks");
        }
        let (a, b) = (fs::metadata(tree.join(&long)), fs::metadata(from.join(&long)));
        let see = |m: fs::Metadata| (m.mode(), m.mtime());
        assert_eq!(see(a.unwrap()), see(b.unwrap()), "{format}");
    }
}

#[tokio::test]
async fn the_last_of_several_entries_wins() {
    let g = Ground::new();
    let tar = Tar::default()
        .file("a", b"1")
        .hard_link("kept", "a")
        .file("a", b"2")
        .dir("d")
        .file("d/in", b"x")
        .dir("d")
        .dir("gone")
        .file("gone/deep/in", b"x")
        .file("gone", b"now a file")
        .file("turned", b"x")
        .file("turned", b"y")
        .file("e", b"was a file")
        .dir("e")
        .file("e/in", b"x");
    let tree = g.unpacked(&tar.done()).await;
    let read = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!((read("a"), read("kept"), read("turned")), ("2".into(), "1".into(), "y".into()));
    assert_eq!(
        (read("d/in"), read("gone"), read("e/in")),
        ("x".into(), "now a file".into(), "x".into())
    );
}

#[tokio::test]
async fn pax_says_more_than_the_header() {
    let g = Ground::new();
    let path = format!("{}/file", "p".repeat(150));
    let records = [("path", path.as_str()), ("size", "3"), ("mtime", "12.25"), ("comment", "hi")];
    let tar = Tar::default()
        .entry(b'g', "global", "", b"")
        .pax(&records)
        .file("short", b"abc")
        .pax(&[("linkpath", "over/there")])
        .symlink("l", "ignored");
    let tree = g.unpacked(&tar.done()).await;
    let meta = fs::metadata(tree.join(&path)).unwrap();
    assert_eq!((meta.len(), meta.mtime(), meta.mtime_nsec()), (3, 12, 250_000_000));
    assert_eq!(fs::read_link(tree.join("l")).unwrap().to_str(), Some("over/there"));
}

#[tokio::test]
async fn directories_that_are_only_implied_are_made() {
    let g = Ground::new();
    let tree = g.unpacked(&Tar::default().file("a/b/c", b"x").done()).await;
    let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/c")), (0o755, 0o755, 0o644));
}
