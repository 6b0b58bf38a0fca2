//! Import, names, lists, removal.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use types::ErrorCode;

use crate::support::{Ground, Tar, busybox, gzip, names};

#[tokio::test]
async fn a_directory_becomes_an_image() {
    let g = Ground::new();
    let rootfs = g.dir.path().join("rootfs");
    busybox(&rootfs);
    fs::set_permissions(rootfs.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    let info = g.import(&rootfs, "alpine").await.unwrap();
    assert_eq!(info.names, ["alpine:latest"]);
    assert!(!info.existed && info.size_bytes > 100_000 && info.entries > 100, "{info:?}");

    let image = g.store.prepare("alpine:latest").await.unwrap();
    assert_eq!(image.resolved, info.digest);
    assert_eq!(image.layers.len(), 2, "its own layer and the base");
    assert!(image.binds.is_empty());
    let layer = g.store.layers_dir().join(&image.layers[0]);
    assert_eq!(fs::read_link(layer.join("bin/sh")).unwrap(), Path::new("busybox"));
    assert!(Command::new(layer.join("bin/busybox")).arg("true").status().unwrap().success());
    assert_eq!(fs::metadata(layer.join("etc")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&layer).unwrap().mode() & 0o7777, 0o755);
    let same = |m: &fs::Metadata| (m.mtime(), m.mtime_nsec());
    assert_eq!(
        same(&fs::metadata(layer.join("etc")).unwrap()),
        same(&fs::metadata(rootfs.join("etc")).unwrap())
    );

    let again = g.import(&rootfs, "other:1").await.unwrap();
    assert!(again.existed);
    assert_eq!(again.digest, info.digest);
    assert_eq!(again.names, ["alpine:latest", "other:1"]);
    g.assert_clean(2);
    assert_eq!(fs::metadata(g.images()).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_tar_and_its_gzip_are_one_image() {
    let g = Ground::new();
    let rootfs = g.dir.path().join("rootfs");
    busybox(&rootfs);
    let tar = g.dir.path().join("a.tar");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&rootfs).arg(".").status();
    assert!(made.unwrap().success());
    let plain = g.import(&tar, "plain").await.unwrap();
    let zipped = g.dir.path().join("a.tar.gz");
    fs::write(&zipped, gzip(&fs::read(&tar).unwrap())).unwrap();
    let gz = g.import(&zipped, "zipped").await.unwrap();
    assert!(!plain.existed && gz.existed);
    assert_eq!((plain.digest, &plain.layers), (gz.digest, &gz.layers));
    let layer = g.store.layers_dir().join(&plain.layers[0]);
    assert_eq!(names(&layer), names(&rootfs));
    assert_eq!(names(&layer.join("bin")), names(&rootfs.join("bin")));
    let content = |dir: &Path| fs::read(dir.join("bin/busybox")).unwrap();
    assert!(content(&layer) == content(&rootfs), "the same bytes");
    g.assert_clean(2);
}

#[tokio::test]
async fn the_same_file_again_is_not_unpacked_again() {
    let g = Ground::new();
    let tar = g.dir.path().join("a.tar");
    fs::write(&tar, Tar::default().file("a", b"x").done()).unwrap();
    let first = g.import(&tar, "a").await.unwrap();
    let layer = g.store.layers_dir().join(&first.layers[0]);
    let inode = fs::metadata(layer.join("a")).unwrap().ino();
    assert!(g.import(&tar, "a").await.unwrap().existed);
    assert_eq!(fs::metadata(layer.join("a")).unwrap().ino(), inode);
}

#[tokio::test]
async fn the_base_has_what_every_sandbox_needs() {
    let g = Ground::new();
    g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    let image = g.store.prepare("test").await.unwrap();
    let base = g.store.layers_dir().join(image.layers.last().unwrap());
    for dir in ["proc", "dev", "sys", "run", "root", "home", "workspace", "etc", "var/tmp", "tmp"] {
        assert!(fs::symlink_metadata(base.join(dir)).unwrap().is_dir(), "{dir}");
    }
    assert_eq!(fs::metadata(base.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert!(fs::read_to_string(base.join("etc/hosts")).unwrap().contains("localhost"));
    assert!(fs::read_to_string(base.join("etc/passwd")).unwrap().starts_with("root:"));
    assert_eq!(fs::read_to_string(base.join("etc/hostname")).unwrap(), "sandbox\n");
}

#[tokio::test]
async fn an_unknown_image_is_named_with_the_ways_out() {
    let g = Ground::with(&[("py", "python:3")], Default::default());
    let fault = g.store.prepare("nowhere/at-all:3").await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::ImageNotFound);
    for part in ["nowhere/at-all:3", "image import", "images.aliases", "'host'"] {
        assert!(fault.message.contains(part), "{part}: {}", fault.message);
    }
    assert!(!fault.message.contains(g.dir.path().to_str().unwrap()));
    let fault = g.store.prepare("py").await.unwrap_err();
    assert!(fault.message.contains("python:3") && fault.message.contains("py:latest"));
    assert_eq!(g.store.prepare("No Name").await.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn an_alias_means_its_target() {
    let g = Ground::with(&[("alpine:latest", "test"), ("machine", "host")], Default::default());
    let info = g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    for name in ["alpine", "docker.io/library/alpine:latest", "test", &info.digest] {
        // Without a fetch, too, although nobody asked for that name before.
        let here = g.store.prepared(name).await.unwrap();
        assert_eq!(here.resolved, info.digest, "{name}");
        for _ in 0..2 {
            assert_eq!(g.store.prepare(name).await.unwrap().resolved, info.digest, "{name}");
        }
    }
    assert_eq!(g.store.prepare("machine").await.unwrap().resolved, "host");
    assert_eq!(g.store.prepared("no-such:1").await, None);
    assert_eq!(g.store.aliases().len(), 2);
}

#[tokio::test]
async fn a_name_given_anew_is_seen_at_once_by_all() {
    let g = Ground::new();
    let other = g.again();
    let one = g.import_bytes(&Tar::default().file("a", b"1").done()).await.unwrap();
    assert_eq!(other.prepare("test").await.unwrap().resolved, one.digest);
    let two = g.import_bytes(&Tar::default().file("a", b"2").done()).await.unwrap();
    assert_ne!(one.digest, two.digest);
    assert_eq!(other.prepare("test").await.unwrap().resolved, two.digest);
    assert_eq!(g.store.prepare("test").await.unwrap().resolved, two.digest);
    let listed = g.store.list().await.unwrap();
    let nameless = listed.iter().find(|i| i.digest == one.digest).unwrap();
    assert!(nameless.names.is_empty());
}

#[tokio::test]
async fn an_image_goes_with_its_last_name() {
    let g = Ground::new();
    let info = g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    g.import(&g.dir.path().join("archive"), "second").await.unwrap();
    g.store.prepare("test").await.unwrap();
    g.store.remove("test").await.unwrap();
    assert_eq!(g.store.prepare("test").await.unwrap_err().code, ErrorCode::ImageNotFound);
    assert_eq!(g.store.prepare("second").await.unwrap().resolved, info.digest);
    g.store.remove("second:latest").await.unwrap();
    assert_eq!(g.store.prepare("second").await.unwrap_err().code, ErrorCode::ImageNotFound);
    assert_eq!(g.store.prepare(&info.digest).await.unwrap_err().code, ErrorCode::ImageNotFound);
    assert!(g.store.list().await.unwrap().is_empty());
    g.assert_clean(1);
    assert_eq!(g.store.remove("second").await.unwrap_err().code, ErrorCode::ImageNotFound);
    assert_eq!(g.store.remove("host").await.unwrap_err().code, ErrorCode::BadRequest);
    // The same can come back.
    let info = g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    assert!(!info.existed);
    g.store.remove(&info.digest["sha256:".len()..][..12]).await.unwrap();
    g.assert_clean(1);
}

#[tokio::test]
async fn an_image_that_is_held_stays() {
    let g = Ground::new();
    g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    let image = g.store.prepare("test").await.unwrap();
    let hold = g.store.hold(&image).await.unwrap();
    let fault = g.again().remove("test").await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::Conflict);
    assert!(fault.message.contains("test"), "{}", fault.message);
    assert!(g.store.prepare("test").await.is_ok());
    drop(hold);
    g.again().remove("test").await.unwrap();
    assert_eq!(g.store.hold(&image).await.err().unwrap().code, ErrorCode::ImageNotFound);
}

#[tokio::test]
async fn a_source_that_is_none_is_said() {
    let g = Ground::new();
    let fifo = g.dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let empty = g.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for source in [g.dir.path().join("nothing"), fifo, empty, "/dev/null".into()] {
        let fault = g.import(&source, "a").await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::BadRequest, "{source:?}: {}", fault.message);
    }
    g.assert_clean(1);
}

#[tokio::test]
async fn a_directory_is_read_without_following_or_waiting() {
    let g = Ground::new();
    let rootfs = g.dir.path().join("rootfs");
    fs::create_dir_all(rootfs.join("d")).unwrap();
    fs::write(rootfs.join("d/file"), "x").unwrap();
    fs::hard_link(rootfs.join("d/file"), rootfs.join("d/again")).unwrap();
    symlink("/etc/shadow", rootfs.join("shadow")).unwrap();
    symlink("nowhere", rootfs.join("dangling")).unwrap();
    assert!(Command::new("mkfifo").arg(rootfs.join("fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(rootfs.join("socket")).unwrap();
    let info = g.import(&rootfs, "a").await.unwrap();
    assert_eq!(info.notes, ["1 × FIFO left out", "1 × socket left out"]);
    let layer = g.store.layers_dir().join(&info.layers[0]);
    assert_eq!(names(&layer), ["d", "dangling", "shadow"]);
    assert_eq!(fs::read_link(layer.join("shadow")).unwrap(), Path::new("/etc/shadow"));
    let ino = |name: &str| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(ino("d/file"), ino("d/again"));
}

#[tokio::test]
async fn the_store_does_not_import_itself() {
    let g = Ground::new();
    fs::write(g.dir.path().join("a"), "x").unwrap();
    let info = g.import(g.dir.path(), "a").await.unwrap();
    assert_eq!(names(&g.store.layers_dir().join(&info.layers[0])), ["a"]);
}

#[tokio::test]
async fn an_import_nobody_waits_for_stops_and_leaves_nothing() {
    let g = Ground::new();
    let (started, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let path = g.dir.path().join("big.tar");
    fs::write(&path, Tar::default().file("a", &vec![7; 32 << 20]).done()).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let store = g.store.clone();
    let import = tokio::spawn(async move {
        let told = move |_| {
            started.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
        };
        store.import(&path, Some("big"), told).await
    });
    seen.recv().await.unwrap();
    import.abort();
    assert!(import.await.unwrap_err().is_cancelled());
    drop(go);
    crate::support::wait_for("the import to stop", || names(&g.images().join("tmp")).is_empty());
    g.assert_clean(1);
    assert!(g.store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_known_name_is_cheap() {
    let g = Ground::new();
    g.import_bytes(&Tar::default().file("a", b"x").done()).await.unwrap();
    for name in ["test", "host"] {
        g.store.prepare(name).await.unwrap();
        // Never leaves the thread: ready at the first poll.
        let mut prepared = Box::pin(g.store.prepare(name));
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::future::Future::poll(prepared.as_mut(), cx))
        })
        .await;
        assert!(matches!(polled, std::task::Poll::Ready(Ok(_))), "{name}");
    }
}
