//! Several processes on one store, and processes that die.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use providers::images::ImageStore;
use types::ErrorCode;

use crate::layout::{Layout, Pack};
use crate::support::{Ground, Tar, busybox, names, root, wait_for};

const IMAGES: &str = "TEST_IMAGES";
const SOURCE: &str = "TEST_SOURCE";
const TAG: &str = "TEST_TAG";

/// Not a test: what the tests below run as another process.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child_imports() {
    let var = |name: &str| std::env::var_os(name);
    let (Some(images), Some(source), Some(tag)) = (var(IMAGES), var(SOURCE), var(TAG)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let store = ImageStore::open(PathBuf::from(images), BTreeMap::new()).unwrap();
        let tag = tag.to_str().unwrap();
        store.import(Path::new(&source), Some(tag), |_| {}).await.unwrap();
        store.prepare(tag).await.unwrap();
        store.prepare("host").await.unwrap();
    });
}

fn child(program: &Path, images: &Path, source: &Path, tag: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", "processes::child_imports", "--ignored", "--quiet"])
        .env(IMAGES, images)
        .env(SOURCE, source)
        .env(TAG, tag)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn this() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn succeeds(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn two_processes_import_the_same_at_once() {
    let g = Ground::new();
    let rootfs = g.dir.path().join("rootfs");
    busybox(&rootfs);
    let mut both = Vec::new();
    for tag in ["one", "two", "three"] {
        both.push(child(&this(), &g.images(), &rootfs, tag).spawn().unwrap());
    }
    both.into_iter().for_each(succeeds);
    let images = g.store.list().await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["one:latest", "three:latest", "two:latest"]);
    assert_eq!(g.store.prepare("two").await.unwrap().resolved, images[0].digest);
    wait_for("temporary files to go", || names(&g.images().join("tmp")).is_empty());
    g.assert_clean(3);
}

#[tokio::test]
async fn a_process_killed_anywhere_leaves_nothing_visible() {
    let whole = Tar::default().file("a", b"x").done();
    for point in ["images.unpacked", "images.layer_placed", "images.manifest_placed"] {
        let g = Ground::new();
        let source = g.dir.path().join("a.tar");
        fs::write(&source, &whole).unwrap();
        let killed = child(&this(), &g.images(), &source, "a")
            .env("STACYVM_FAILPOINT", point)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(killed.signal(), Some(9), "{point}");
        assert!(!names(&g.images().join("tmp")).is_empty(), "{point}: it died in the middle");
        assert_eq!(g.store.prepare("a").await.unwrap_err().code, ErrorCode::ImageNotFound);
        // The next to open sweeps.
        let next = g.again();
        let layers = if point == "images.manifest_placed" { 2 } else { 1 };
        wait_for("the sweep", || {
            names(&g.images().join("tmp")).is_empty()
                && names(&g.images().join("locks")).len() == layers
        });
        if point != "images.manifest_placed" {
            assert!(next.list().await.unwrap().is_empty(), "{point}");
            g.assert_clean(1);
        }
        let info = g.import(&source, "a").await.unwrap();
        assert_eq!(g.store.prepare("a").await.unwrap().resolved, info.digest, "{point}");
        g.assert_clean(2);
    }
}

#[tokio::test]
async fn a_process_killed_amid_several_layers_leaves_nothing() {
    let files = |name: &str| Tar::default().dir(name).file(&format!("{name}/x"), b"x").done();
    for point in ["pull.unpacked", "pull.placed", "pull.layers", "pull.recorded", "pull.named"] {
        let g = Ground::new();
        let layout = Layout::new(g.dir.path().join("layout"));
        let layout = layout.layer(&files("a"), Pack::Gzip).layer(&files("b"), Pack::Zstd);
        let source = layout.done("x:1", serde_json::json!({}));
        let mut killed = child(&this(), &g.images(), &source, "a");
        killed.env("STACYVM_FAILPOINT", point).stderr(Stdio::null());
        assert_eq!(killed.status().unwrap().signal(), Some(9), "{point}: it came past it");
        let whole = matches!(point, "pull.recorded" | "pull.named");
        if point != "pull.named" {
            let fault = g.store.prepare("a").await.unwrap_err();
            assert_eq!(fault.code, ErrorCode::ImageNotFound, "{point}: half an image has no name");
        }
        // The next to open sweeps.
        let next = g.again();
        let layers = if whole { 3 } else { 1 };
        wait_for("the sweep", || {
            let left = |part: &str| names(&g.images().join(part)).len();
            (left("tmp"), left("making"), left("layers"), left("locks")) == (0, 0, layers, layers)
        });
        assert_eq!(next.list().await.unwrap().len(), usize::from(whole), "{point}");
        let info = g.import(&source, "a").await.unwrap();
        assert_eq!(g.store.prepare("a").await.unwrap().resolved, info.digest, "{point}");
        g.assert_clean(3);
    }
}

#[tokio::test]
async fn processes_share_the_work_on_layers() {
    let g = Ground::new();
    let big: Vec<u8> =
        (0..4u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tar = Tar::default().dir("a").file("a/big", &big).done();
    let layout = Layout::new(g.dir.path().join("layout")).layer(&tar, Pack::Gzip);
    let source = layout.done("x:1", serde_json::json!({}));
    let mut all = Vec::new();
    for tag in ["one", "two", "three"] {
        all.push(child(&this(), &g.images(), &source, tag).spawn().unwrap());
    }
    all.into_iter().for_each(succeeds);
    let images = g.store.list().await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["one:latest", "three:latest", "two:latest"]);
    wait_for("temporary files to go", || names(&g.images().join("tmp")).is_empty());
    g.assert_clean(3);
    assert_eq!(names(&g.images().join("making")), [""; 0]);
}

#[tokio::test]
async fn work_of_a_living_process_is_not_swept() {
    let g = Ground::new();
    let source = g.dir.path().join("a.tar");
    fs::write(&source, Tar::default().file("a", &vec![7; 16 << 20]).done()).unwrap();
    let (images, store) = (g.images(), g.store.clone());
    let told = std::sync::atomic::AtomicBool::new(false);
    let imported = store.import(&source, Some("a"), move |_| {
        if !told.swap(true, std::sync::atomic::Ordering::Relaxed) {
            // Another process opens the store in the middle, and has time to sweep what it may.
            let _other = ImageStore::open(images.clone(), BTreeMap::new()).unwrap();
            let swept = || {
                fs::read_dir("/proc/self/task").unwrap().flatten().all(|task| {
                    fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim()
                        != "image-sweep"
                })
            };
            wait_for("the sweep's thread to end", swept);
        }
    });
    assert!(imported.await.is_ok());
    assert!(g.store.prepare("a").await.is_ok());
}

#[tokio::test]
async fn an_image_that_is_mounted_somewhere_is_in_use() {
    if !root() {
        println!("skipped: only root can mount here");
        return;
    }
    let g = Ground::new();
    // Content of its own: the same in another test's store would count as in use too.
    g.import_bytes(&Tar::default().file("a", b"x, mounted").done()).await.unwrap();
    let image = g.store.prepare("test").await.unwrap();
    // In a mount namespace of its own, as a sandbox has; its maker is gone, so no flock is left.
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:{} /mnt && cat /mnt/a && read -r _",
        image.layers[0], image.layers[1]
    );
    let mut sandbox = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{script}; umount /mnt")])
        .current_dir(g.store.layers_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = [0];
    sandbox.stdout.take().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"x");
    assert_eq!(g.store.remove("test").await.unwrap_err().code, ErrorCode::Conflict);
    assert!(g.store.prepare("test").await.is_ok());
    drop(sandbox.stdin.take());
    sandbox.wait().unwrap();
    g.store.remove("test").await.unwrap();
    g.assert_clean(1);
}

#[test]
fn an_ordinary_user_has_a_store_too() {
    if !root() {
        println!("skipped: only root can become another user");
        return;
    }
    const USER: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), open.clone()).unwrap();
    let program = dir.path().join("program");
    // Copied by another process: were it open for writing here, a child that another test starts at
    // that moment would have it too, and it could not be run.
    assert!(Command::new("cp").arg(this()).arg(&program).status().unwrap().success());
    fs::set_permissions(&program, open).unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    // Modes that hinder their owner, and owners and devices that an ordinary user can't make.
    let mut closed =
        tar::Header::from_byte_slice(&crate::support::header(b'5', "d", "", 0)).clone();
    closed.set_mode(0);
    closed.set_uid(12);
    closed.set_cksum();
    let tar = Tar::default().header(&closed).file("d/in", b"x").entry(b'3', "dev/null", "", b"");
    let source = dir.path().join("a.tar");
    fs::write(&source, tar.done()).unwrap();
    let images = home.join("images");
    let run = |tag: &str| {
        let mut command = child(&program, &images, &source, tag);
        succeeds(command.uid(USER).gid(USER).env("TMPDIR", &home).spawn().unwrap());
    };
    run("one");
    run("two");
    let layers = images.join("layers");
    let imported =
        names(&layers).into_iter().map(|n| layers.join(n)).find(|p| p.join("d").exists());
    let d = fs::metadata(imported.unwrap().join("d")).unwrap();
    assert_eq!((d.uid(), d.mode() & 0o7777), (USER, 0));
    assert_eq!(names(&images.join("refs")), ["one:latest", "two:latest"]);
    wait_for("temporary files to go", || names(&images.join("tmp")).is_empty());
    let skeleton: Vec<_> = names(&layers);
    assert_eq!(skeleton.len(), 3, "the image, the base and the host's skeleton");
    // Root does not take a store that is another user's.
    let fault = ImageStore::open(images, BTreeMap::new()).err().unwrap();
    assert_eq!(fault.code, ErrorCode::Unavailable);
}
