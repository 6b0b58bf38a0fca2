//! Files that others have, too: the host's programs, an image's layers, a neighbour's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::control::{self, Control};
use super::ground::{Ground, IMAGE};

/// What a file is: enough to see any change.
fn seen(path: &Path) -> (u32, u64, i64, i64, u64, Vec<u8>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let content = if meta.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    (meta.mode(), meta.size(), meta.mtime(), meta.ctime(), meta.nlink(), content)
}

/// The file of the image as the host keeps it.
fn in_the_layers(ground: &Ground, file: &str) -> PathBuf {
    let layers = ground.system().data_dir().join("images/layers");
    let mut stack = vec![layers];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.ends_with(file) {
                return path;
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                stack.push(path);
            }
        }
    }
    panic!("no layer has {file}");
}

#[tokio::test]
async fn shared_files_cannot_be_changed() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    // The host's programs: not at all.
    let target = ground.spawn("host").await;
    for path in ["/usr/bin/env", "/usr/lib/os-release", "/usr/bin"] {
        let before = seen(Path::new(path));
        let verdict = target.try_one(&format!("change={path}")).await;
        assert!(matches!(verdict.error(), Some("EROFS" | "EPERM" | "EACCES")), "{verdict:?}");
        assert_eq!(seen(Path::new(path)), before, "{path} of the host");
    }
    // An image's: as one's own copy.
    let shared = in_the_layers(&ground, "bin/busybox");
    let before = seen(&shared);
    let (target, neighbour) = (ground.spawn(IMAGE).await, ground.spawn(IMAGE).await);
    let ruin = "cp /bin/busybox /tmp/busybox && exec /tmp/busybox sh -c 'b=/tmp/busybox; \
        $b chmod 4777 /bin/busybox && echo x >>/bin/busybox && \
        $b rm -f /bin/busybox /etc/passwd && $b mkdir /bin/planted'";
    target.shell(ruin).await;
    assert!(target.try_one("change=/bin/attacker").await.broke(), "its own copy is its own");
    assert_eq!(seen(&shared), before, "the shared layer");
    for other in [&neighbour, &ground.spawn(IMAGE).await] {
        let look = "ls /bin/planted 2>/dev/null; stat -c %a /bin/busybox; test -e /etc/passwd";
        assert_eq!(other.shell(look).await, "755\n");
    }
    ground.end().await;
}

#[tokio::test]
async fn a_neighbour_sees_and_loses_nothing() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for image in [IMAGE, "host"] {
        let (target, neighbour) = (ground.spawn(image).await, ground.spawn(image).await);
        let places = "/ /workspace /tmp /var/tmp /root /home /run /etc /dev /dev/shm /dev/pts";
        let plant = format!(
            "for d in {places}; do echo x >$d/planted; mkdir $d/p; done 2>/dev/null; \
             for c in 'chmod 0' 'chown 9' 'touch -d @0' 'rm -f'; do \
             $c /dev/null /dev/zero /dev/urandom /dev/ptmx /dev/pts /dev/shm; done 2>/dev/null; :"
        );
        target.shell(&plant).await;
        let look = format!(
            "for d in {places}; do ls -d $d/planted $d/p; done 2>/dev/null; \
             stat -c %a:%u:%F /dev/null /dev/zero /dev/urandom; echo >/dev/null && echo well"
        );
        let device = "666:0:character special file\n";
        let fresh = ground.spawn(image).await;
        for other in [&neighbour, &fresh] {
            let seen = other.shell(&look).await.replace("666:65534:", "666:0:");
            assert_eq!(seen, format!("{}well\n", device.repeat(3)), "{image}");
        }
        let null = fs::metadata("/dev/null").unwrap();
        assert_eq!((null.mode() & 0o7777, null.uid()), (0o666, 0));
    }
    ground.end().await;
}

#[tokio::test]
async fn a_suid_program_gains_nothing() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        for folder in ["/workspace", "/tmp", "/dev/shm"] {
            let copy = format!("{folder}/suid");
            target.shell(&format!("cp {} {copy}", target.program())).await;
            let seen = target.try_one(&format!("suid={copy}")).await;
            // /dev/shm has no programs at all.
            let ran = folder != "/dev/shm";
            assert!(!ran || seen.error() == Some("EPERM"), "{seen:?}");
            assert!(ran || seen.words == "broke:it did not run", "{seen:?}");
        }
    }
    let without = Control::Root.run(&["suid=/tmp/attacker"]).unwrap();
    assert!(without[0].words.contains("euid 0"), "{without:?}");
    ground.end().await;
}
