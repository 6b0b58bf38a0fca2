//! Pulls whose process is killed half way, and what the next one makes of what they left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use providers::images::{ImageStore, Options};
use serde_json::json;
use types::ErrorCode;

use crate::layout::{Layout, Pack};
use crate::pulls::{ground, http, noise, pull};
use crate::served::{Answer, Crooked};
use crate::support::{Ground, Tar, names, wait_for};

const IMAGES: &str = "TEST_IMAGES";
const NAME: &str = "TEST_NAME";
const BIG: usize = 3 << 20;

/// Not a test: what the tests below run as another process, to be killed.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child_pulls() {
    let var = |name: &str| std::env::var_os(name);
    let (Some(images), Some(name)) = (var(IMAGES), var(NAME)) else { return };
    let name = name.to_str().unwrap();
    let registries = vec![http(name.split('/').next().unwrap())];
    let options = Options { registries, ..Options::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = ImageStore::open_with(PathBuf::from(images), BTreeMap::new(), options).unwrap();
        store.pull(name).unwrap().wait().await.unwrap();
    });
}

fn child(g: &Ground, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "killed::child_pulls", "--ignored", "--quiet"])
        .env(IMAGES, g.images())
        .env(NAME, name)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// An image of three layers, the undermost of which another image has too.
fn layouts(dir: &Path) -> (PathBuf, PathBuf) {
    let base = Tar::default().dir("a").file("a/base", &noise(BIG, 5)).done();
    let small = Tar::default().file("b", b"small").done();
    let big = Tar::default().file("c", &noise(BIG, 9)).done();
    let lower = Layout::new(dir.join("lower")).layer(&base, Pack::Gzip).done("1", json!({}));
    let upper = Layout::new(dir.join("upper")).layer(&base, Pack::Gzip);
    let upper = upper.layer(&small, Pack::Zstd).layer(&big, Pack::Gzip).done("1", json!({}));
    (lower, upper)
}

/// Digests of the layers of a layout's one image, undermost first.
fn layers(layout: &Path) -> Vec<String> {
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let hex = |value: &serde_json::Value| {
        value["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned()
    };
    let manifest = hex(&read(layout.join("index.json"))["manifests"][0]);
    let manifest = read(layout.join("blobs/sha256").join(manifest));
    manifest["layers"].as_array().unwrap().iter().map(hex).collect()
}

/// The next process to open the store clears up: only layers of whole images stay.
fn swept(g: &Ground, layers: usize) {
    let _next = g.again();
    wait_for("the sweep", || {
        let left = |part: &str| names(&g.images().join(part)).len();
        (left("tmp"), left("making"), left("layers"), left("locks")) == (0, 0, layers, layers)
    });
}

#[tokio::test]
async fn a_pull_killed_anywhere_leaves_nothing_and_the_next_reuses_what_is_whole() {
    for point in ["pull.resolved", "pull.unpacked", "pull.placed", "pull.layers", "pull.recorded"] {
        let place = tempfile::tempdir().unwrap();
        let (lower, upper) = layouts(place.path());
        let base = Crooked::start(lower, |_| Answer::Honest);
        let server = Crooked::start(upper.clone(), |_| Answer::Honest);
        let hosts = [base.addr, server.addr].map(|addr| http(&addr.to_string()));
        let g = ground(hosts.to_vec());
        pull(&g, &format!("{}/base:1", base.addr)).await.unwrap();
        let name = format!("{}/image:1", server.addr);
        let killed = child(&g, &name).env("STACYVM_FAILPOINT", point).status().unwrap();
        assert_eq!(killed.signal(), Some(9), "{point}: it came past it");
        // Half an image has no name, and what belongs to no image goes.
        let known = g.store.inspect(&name).await;
        assert_eq!(known.map_err(|f| f.code).err(), Some(ErrorCode::ImageNotFound), "{point}");
        swept(&g, if point == "pull.recorded" { 4 } else { 2 });
        let before = server.asked().len();
        let info = pull(&g, &name).await.unwrap();
        assert_eq!(info.layers.len(), 3, "{point}");
        let again: Vec<String> =
            server.asked().split_off(before).into_iter().map(|a| a.path).collect();
        let asked = |layer: &String| again.iter().any(|path| path.ends_with(layer.as_str()));
        let fetched: Vec<bool> = layers(&upper).iter().map(asked).collect();
        match point {
            // The image was whole, and lacked but its name.
            "pull.recorded" => assert_eq!(fetched, [false; 3], "{point}"),
            _ => assert_eq!(fetched, [false, true, true], "{point}"),
        }
        g.assert_clean(4);
        assert_eq!(names(&g.images().join("making")), [""; 0], "{point}");
    }
}

#[tokio::test]
async fn a_pull_killed_in_the_middle_of_a_layer_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (lower, upper) = layouts(place.path());
    let (base, big) = (Crooked::start(lower, |_| Answer::Honest), layers(&upper)[2].clone());
    let (stuck, seen) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (stays, told, wanted) = (Arc::clone(&stuck), Arc::clone(&seen), big.clone());
    let server = Crooked::start(upper, move |asked| {
        if asked.path.ends_with(&wanted) && stays.load(Ordering::Relaxed) {
            told.store(true, Ordering::Relaxed);
            return Answer::Drip;
        }
        Answer::Honest
    });
    let g = ground([base.addr, server.addr].map(|addr| http(&addr.to_string())).to_vec());
    pull(&g, &format!("{}/base:1", base.addr)).await.unwrap();
    let name = format!("{}/image:1", server.addr);
    let mut child = child(&g, &name).spawn().unwrap();
    // One layer is on its way, the one below it is in the store already.
    wait_for("the middle of the pull", || {
        seen.load(Ordering::Relaxed) && names(&g.images().join("layers")).len() == 3
    });
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!names(&g.images().join("tmp")).is_empty(), "it died in the middle");
    swept(&g, 2);
    stuck.store(false, Ordering::Relaxed);
    pull(&g, &name).await.unwrap();
    g.assert_clean(4);
}
