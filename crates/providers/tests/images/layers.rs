//! Images of several layers: what they hide, share and take from each other, and that another
//! unpacker sees the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use providers::images::{Naming, Options, Prune, Pruned};
use serde_json::json;
use types::ErrorCode;

use crate::layout::{Layout, Pack, assert_same, listing, merged, sha256};
use crate::support::{Ground, Tar, header, names, root};

fn base() -> Vec<u8> {
    let mode = |path: &str, kind: u8, mode: u32, uid: u64| {
        let mut h = tar::Header::from_byte_slice(&header(kind, path, "", 0)).clone();
        h.set_mode(mode);
        h.set_uid(uid);
        h.set_cksum();
        h
    };
    Tar::default()
        .dir("./")
        .dir("usr")
        .header(&mode("usr/lib", b'5', 0o750, 12))
        .file("usr/lib/one", b"1")
        .file("usr/lib/two", b"2")
        .symlink("lib", "usr/lib")
        .dir("gone")
        .file("gone/a", b"a")
        .dir("emptied")
        .file("emptied/a", b"a")
        .file("emptied/b", b"b")
        .dir("swapped")
        .file("swapped/old", b"old")
        .file("link-me", b"linked")
        .hard_link("hard", "link-me")
        .file("replaced", b"before")
        .symlink("to-file", "replaced")
        .done()
}

fn second() -> Vec<u8> {
    Tar::default()
        // Parents that are only implied keep owner and mode; a link on the way is followed.
        .file("usr/lib/three", b"3")
        .file("lib/four", b"4")
        .file(".wh.gone", b"")
        .dir("emptied")
        .file("emptied/.wh..wh..opq", b"")
        .file("emptied/c", b"c")
        // Deleted and made anew, in both orders.
        .file(".wh.swapped", b"")
        .dir("swapped")
        .file("swapped/new", b"new")
        .file("usr/lib/.wh.one", b"")
        .hard_link("again", "link-me")
        .file("replaced", b"after")
        .file(".wh..wh.plnk", b"")
        .done()
}

fn two(dir: &Path, first: Pack, then: Pack) -> std::path::PathBuf {
    let run = json!({"Env": ["A=b"], "WorkingDir": "/srv", "User": "7", "Entrypoint": ["/no"]});
    Layout::new(dir.to_owned()).layer(&base(), first).layer(&second(), then).done("two:1", run)
}

#[tokio::test]
async fn whiteouts_links_and_implied_parents() {
    if !root() {
        println!("skipped: only root can mount here");
        return;
    }
    let g = Ground::new();
    let dir = two(&g.dir.path().join("layout"), Pack::Gzip, Pack::Zstd);
    let info = g.store.import(&dir, None, |_| {}).await.unwrap();
    assert_eq!(info.names, ["two:1"]);
    assert_eq!((info.layers.len(), info.known_as.len()), (2, 1));
    let image = g.store.prepare("two:1").await.unwrap();
    assert_eq!(image.env, ["A=b"]);
    assert_eq!((image.workdir.as_deref(), image.user.as_deref()), (Some("/srv"), Some("7")));
    let tree = merged(g.store.layers_dir(), &image);
    let kind = |path: &str| tree.get(path).map(|line| &line[..1]);
    for gone in ["gone", "gone/a", "emptied/a", "emptied/b", "swapped/old", "usr/lib/one"] {
        assert_eq!(kind(gone), None, "{gone}");
    }
    for there in ["emptied/c", "swapped/new", "usr/lib/two", "usr/lib/three", "usr/lib/four"] {
        assert_eq!(kind(there), Some("f"), "{there}");
    }
    assert_eq!(kind("lib"), Some("l"));
    assert!(tree["usr/lib"].starts_with("d 750 12 0"), "{}", tree["usr/lib"]);
    assert!(
        tree["again"].ends_with(&sha256(b"linked")) && tree["replaced"].contains(&sha256(b"after"))
    );
    assert!(!tree.keys().any(|path| path.contains(".wh.")), "{:?}", tree.keys());
}

#[tokio::test]
async fn another_unpacker_sees_the_same() {
    let there = Command::new("umoci").arg("--version").output();
    if !root() || there.is_err() {
        println!("skipped: it takes root and umoci");
        return;
    }
    let g = Ground::new();
    let dir = two(&g.dir.path().join("layout"), Pack::Plain, Pack::Gzip);
    g.store.import(&dir, Some("two"), |_| {}).await.unwrap();
    let ours = merged(g.store.layers_dir(), &g.store.prepare("two").await.unwrap());
    let theirs = g.dir.path().join("bundle");
    let image = format!("{}:two:1", dir.display());
    let image = image.replace(":two:1", ":1");
    // Its names are tags alone.
    let index = fs::read_to_string(dir.join("index.json")).unwrap().replace("two:1", "1");
    fs::write(dir.join("index.json"), index).unwrap();
    let done = Command::new("umoci").args(["unpack", "--image", &image]).arg(&theirs).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut theirs = listing("", &theirs.join("rootfs"));
    let mut ours = ours;
    // The one it sees differently: a hard link to a lower file makes one file of both names for
    // us, and its count of names differs with what an overlay counts.
    for tree in [&mut ours, &mut theirs] {
        for line in tree.values_mut() {
            let words: Vec<&str> = line.split(' ').collect();
            *line = if words[0] == "f" {
                [&words[..7], &words[8..]].concat().join(" ")
            } else {
                line.clone()
            };
        }
    }
    assert_same(&ours, &theirs);
}

#[tokio::test]
async fn layers_are_shared_and_kept_while_an_image_has_them() {
    let g = Ground::new();
    let (a, b) =
        (Tar::default().dir("a").file("a/x", b"1"), Tar::default().dir("b").file("b/x", b"2"));
    let (a, b) = (a.done(), b.done());
    let make = |name: &str, layers: &[&[u8]]| {
        let layout = Layout::new(g.dir.path().join(name));
        let layout = layers.iter().fold(layout, |l, tar| l.layer(tar, Pack::Gzip));
        layout.done(&format!("{name}:1"), json!({}))
    };
    // In another order too: neither leans on what lies below.
    let (one, other) = (make("one", &[&a, &b]), make("other", &[&b, &a]));
    let only = make("only", &[&a]);
    let mut infos = Vec::new();
    for dir in [&one, &other, &only] {
        infos.push(g.store.import(dir, None, |_| {}).await.unwrap());
    }
    assert_eq!(names(&g.images().join("layers")).len(), 3, "two and the base");
    assert!(infos[1].existed && infos[2].existed && !infos[0].existed);
    assert_eq!(infos[0].layers, infos[1].layers.iter().rev().cloned().collect::<Vec<_>>());
    g.store.remove("one:1").await.unwrap();
    g.store.remove("other:1").await.unwrap();
    assert_eq!(names(&g.images().join("layers")).len(), 2, "one and the base");
    assert!(g.store.prepare("only:1").await.is_ok());
    assert!(g.store.prepare(&infos[2].known_as[0]).await.is_ok(), "by its digest in registries");
    g.store.remove("only:1").await.unwrap();
    g.assert_clean(1);
    assert_eq!(names(&g.images().join("refs")), [""; 0]);
    assert_eq!(names(&g.images().join("making")), [""; 0]);
}

#[tokio::test]
async fn archives_of_other_tools_are_taken() {
    let there = Command::new("skopeo").arg("--version").output();
    if there.is_err() {
        println!("skipped: it takes skopeo");
        return;
    }
    let g = Ground::new();
    let dir = two(&g.dir.path().join("layout"), Pack::Gzip, Pack::Gzip);
    let info = g.store.import(&dir, Some("layout"), |_| {}).await.unwrap();
    let index = fs::read_to_string(dir.join("index.json")).unwrap().replace("two:1", "1");
    fs::write(dir.join("index.json"), index).unwrap();
    let skopeo = |to: &str, file: &str| {
        let path = g.dir.path().join(file);
        let to = to.replace("FILE", path.to_str().unwrap());
        let from = format!("oci:{}:1", dir.display());
        let done = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q", &from, &to])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        path
    };
    for (to, file, name) in [
        ("docker-archive:FILE:saved/by:docker", "docker.tar", "saved/by:docker"),
        ("oci-archive:FILE:9", "oci.tar", "fallback:9"),
    ] {
        let path = skopeo(to, file);
        let zipped = path.with_extension("tar.gz");
        fs::write(&zipped, crate::support::gzip(&fs::read(&path).unwrap())).unwrap();
        for path in [path, zipped] {
            let naming = Naming { otherwise: Some("fallback".into()), ..Naming::default() };
            let again = g.store.import_as(&path, naming, |_| {}).await.unwrap();
            assert!(again.names.contains(&name.to_owned()), "{:?}", again.names);
            assert_eq!((&again.layers, again.existed), (&info.layers, true), "{file}");
        }
    }
    assert_eq!(names(&g.images().join("tmp")), [""; 0]);
}

#[tokio::test]
async fn the_one_for_this_machine_and_of_that_name_is_picked() {
    let g = Ground::new();
    let layout = Layout::new(g.dir.path().join("many")).layer(&base(), Pack::Gzip);
    let arm = json!({"os": "linux", "architecture": "arm64"});
    let amd = json!({"os": "linux", "architecture": "amd64"});
    let mut right = layout.manifest(json!({"Env": ["X=right"]}));
    let mut wrong = layout.manifest(json!({"Env": ["X=wrong"]}));
    (right["platform"], wrong["platform"]) = (amd, arm);
    let inner = json!({"schemaVersion": 2, "manifests": [wrong, right]});
    let mut nested = layout.blob("index.v1+json", inner.to_string().as_bytes());
    nested["annotations"] = json!({"org.opencontainers.image.ref.name": "many:1"});
    let mut other = layout.manifest(json!({"Env": ["X=other"]}));
    other["annotations"] = json!({"org.opencontainers.image.ref.name": "other:1"});
    layout.index(&[nested, other]);
    let pick = |pick: Option<&str>| Naming { pick: pick.map(str::to_owned), ..Naming::default() };
    let fault = g.store.import_as(&layout.dir, pick(None), |_| {}).await.unwrap_err();
    assert!(fault.message.contains("many:1, other:1"), "{}", fault.message);
    let info = g.store.import_as(&layout.dir, pick(Some("many:1")), |_| {}).await.unwrap();
    assert_eq!((info.env, info.known_as.len()), (vec!["X=right".to_owned()], 2));
    let info = g.store.import_as(&layout.dir, pick(Some("other:1")), |_| {}).await.unwrap();
    assert_eq!(info.env, ["X=other"]);
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let g = Ground::new();
    let refused = async |dir: &Path, words: &str| {
        let fault = g.store.import(dir, Some("bad"), |_| {}).await.unwrap_err();
        assert!(fault.message.contains(words), "{words}: {}", fault.message);
        assert_ne!(fault.code, ErrorCode::InternalError, "{}", fault.message);
        g.assert_clean(1);
        assert_eq!(names(&g.images().join("making")), [""; 0]);
    };
    let each = |name: &str| two(&g.dir.path().join(name), Pack::Gzip, Pack::Gzip);
    let spoil = |dir: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let blobs = dir.join("blobs/sha256");
        for name in names(&blobs) {
            let path = blobs.join(name);
            let mut bytes = fs::read(&path).unwrap();
            if bytes.starts_with(&[0x1f, 0x8b]) {
                change(&mut bytes);
                fs::write(path, bytes).unwrap();
            }
        }
    };
    let dir = each("flipped");
    spoil(&dir, &|bytes| *bytes.last_mut().unwrap() ^= 1);
    refused(&dir, "").await;
    let dir = each("longer");
    spoil(&dir, &|bytes| bytes.push(0));
    refused(&dir, "").await;
    let dir = each("cut");
    spoil(&dir, &|bytes| bytes.truncate(bytes.len() - 20));
    refused(&dir, "").await;
    // Whole, but of another content than the configuration says.
    let other = Layout::new(g.dir.path().join("other")).layer(&base(), Pack::Gzip);
    let mut layout = Layout::new(g.dir.path().join("lies")).layer(&base(), Pack::Gzip);
    layout = layout.layer(&second(), Pack::Gzip);
    let text = fs::read_to_string({
        let m = layout.manifest(json!({}));
        layout.dir.join("blobs/sha256").join(&m["digest"].as_str().unwrap()[7..])
    });
    let mut manifest: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let small = Tar::default().file("x", b"y").done();
    let small = other.blob("layer.v1.tar", &small);
    fs::copy(
        other.dir.join("blobs/sha256").join(&small["digest"].as_str().unwrap()[7..]),
        layout.dir.join("blobs/sha256").join(&small["digest"].as_str().unwrap()[7..]),
    )
    .unwrap();
    manifest["layers"][1] = small;
    let bytes = manifest.to_string();
    layout.index(&[layout.blob("manifest.v1+json", bytes.as_bytes())]);
    refused(&layout.dir, "digest").await;
    for (files, words) in [
        (&[("oci-layout", "{}"), ("index.json", "{}")][..], "neither an index nor an image"),
        (&[("manifest.json", "[]")], "no image in it"),
        (&[("manifest.json", r#"[{"Config": "../x", "Layers": []}]"#)], "leads out"),
        (&[("manifest.json", r#"[{"Config": "x", "Layers": []}]"#)], "lacks the file"),
    ] {
        let tar = files.iter().fold(Tar::default(), |t, (n, c)| t.file(n, c.as_bytes()));
        let path = g.dir.path().join("saved.tar");
        fs::write(&path, tar.done()).unwrap();
        refused(&path, words).await;
    }
    // A hard link to what no layer has, and a path through a file.
    for (name, tar, words) in [
        ("nowhere", Tar::default().hard_link("a", "nowhere").done(), "was not in the archive"),
        ("through", Tar::default().file("link-me/x", b"").done(), "not a directory"),
    ] {
        let layout = Layout::new(g.dir.path().join(name)).layer(&base(), Pack::Gzip);
        let dir = layout.layer(&tar, Pack::Gzip).done("x:1", json!({}));
        refused(&dir, words).await;
    }
    // Links that lead out or in a circle stay inside.
    let outside = g.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let up = format!("../../../../../../..{}", outside.display());
    let below = Tar::default().symlink("out", outside.to_str().unwrap()).symlink("up", &up);
    let below = below.symlink("loop", "loop").done();
    for path in ["out/evil", "up/evil"] {
        let layout = Layout::new(g.dir.path().join(sha256(path.as_bytes())));
        let tar = Tar::default().file(path, b"evil").done();
        let dir = layout.layer(&below, Pack::Gzip).layer(&tar, Pack::Gzip).done("x:1", json!({}));
        g.store.import(&dir, Some("inside"), |_| {}).await.unwrap();
        assert_eq!(names(&outside), [""; 0]);
        g.store.remove("inside").await.unwrap();
    }
    let layout = Layout::new(g.dir.path().join("circle")).layer(&below, Pack::Gzip);
    let tar = Tar::default().file("loop/x", b"").done();
    refused(&layout.layer(&tar, Pack::Gzip).done("x:1", json!({})), "not a directory").await;
}

#[tokio::test]
async fn what_may_go_is_said_and_what_is_in_use_stays() {
    let clock = std::sync::Arc::new(types::clock::ManualClock::new(
        types::Timestamp::from_unix_nanos(4_000_000_000 * 1_000_000_000),
    ));
    let options = Options { clock: clock.clone(), ..Options::default() };
    let g = Ground::with(&[], options);
    let mut digests = Vec::new();
    for name in ["one", "two", "three"] {
        let tar = Tar::default().dir("d").file("d/x", name.repeat(1000).as_bytes()).done();
        let dir = g.dir.path().join(name);
        let dir = Layout::new(dir).layer(&tar, Pack::Gzip).done(&format!("{name}:1"), json!({}));
        digests.push(g.store.import(&dir, None, |_| {}).await.unwrap().digest);
    }
    // The name moves on, and leaves an image without one.
    g.store.tag("two:1", "one:1").await.unwrap();
    let names_of = |pruned: Pruned| -> Vec<String> {
        pruned.removed.into_iter().map(|info| info.digest).collect()
    };
    let nameless = Prune { nameless: true, ..Prune::default() };
    let pruned = g.store.prune(nameless.clone()).await.unwrap();
    assert_eq!(pruned.freed_bytes, 3000);
    assert_eq!(names_of(pruned), [digests[0].clone()]);
    assert!(g.store.prune(nameless).await.unwrap().removed.is_empty());
    let held = g.store.prepare("three:1").await.unwrap();
    let hold = g.store.hold(&held).await.unwrap();
    let old = Prune { unused_for: Some(std::time::Duration::from_secs(60)), ..Prune::default() };
    let all = Prune { all: true, ..Prune::default() };
    assert_eq!(names_of(g.store.prune(old).await.unwrap()), [digests[1].clone()]);
    assert!(g.store.prune(all.clone()).await.unwrap().removed.is_empty(), "held");
    drop(hold);
    let fits = Prune { keep_bytes: Some(5000), ..Prune::default() };
    assert!(g.store.prune(fits).await.unwrap().removed.is_empty());
    let none = Prune { keep_bytes: Some(100), ..Prune::default() };
    assert_eq!(names_of(g.store.prune(none).await.unwrap()), [digests[2].clone()]);
    g.assert_clean(1);
}
