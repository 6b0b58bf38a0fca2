//! The image `host`: what is shown, and above all what is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use providers::images::{ImageStore, Options};
use types::Timestamp;
use types::clock::{ManualClock, SharedClock};

use crate::support::{Ground, names};

#[tokio::test]
async fn this_machine_is_shown_without_its_secrets() {
    let g = Ground::new();
    let image = g.store.prepare("host").await.unwrap();
    assert_eq!((image.resolved.as_str(), image.layers.len()), ("host", 2));
    assert!(image.binds.contains(&"/usr".to_owned()), "{:?}", image.binds);
    let tree = g.store.layers_dir().join(&image.layers[0]);
    for bind in &image.binds {
        assert!(tree.join(&bind[1..]).is_dir(), "{bind}");
        assert!(names(&tree.join(&bind[1..])).is_empty(), "{bind}");
    }
    if fs::symlink_metadata("/bin").unwrap().is_symlink() {
        assert_eq!(fs::read_link(tree.join("bin")).unwrap(), fs::read_link("/bin").unwrap());
    }
    for secret in ["shadow", "shadow-", "gshadow", "ssl/private", "ssh", "sudoers", "machine-id"] {
        assert!(fs::symlink_metadata(tree.join("etc").join(secret)).is_err(), "{secret}");
    }
    let passwd = fs::read_to_string(tree.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:*:0:0:") && passwd.contains("nobody:*:65534"));
    assert_eq!(fs::read_to_string(tree.join("etc/hostname")).unwrap(), "sandbox\n");
    assert_eq!(
        fs::read(tree.join("etc/ld.so.cache")).unwrap(),
        fs::read("/etc/ld.so.cache").unwrap()
    );
    assert!(tree.join("etc/alternatives").is_dir());
    for top in names(&tree) {
        assert!(["etc", "usr", "bin", "sbin"].contains(&&*top) || top.starts_with("lib"), "{top}");
    }
}

/// A machine of our own, with traps.
fn machine(root: &Path) {
    for dir in [
        "usr/bin",
        "usr/lib",
        "etc/ssl/certs",
        "etc/ssl/private",
        "etc/pam.d",
        "etc/ssh",
        "root",
        "srv/closed",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::create_dir(root.join("lib")).unwrap();
    let write = |path: &str, text: &str, mode: u32| {
        fs::write(root.join(path), text).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("etc/profile", "profile", 0o644);
    write("etc/shadow", "secret", 0o640);
    write("etc/shadow-", "secret", 0o644);
    write("etc/ssh/key", "secret", 0o644);
    write("etc/ssl/private/key", "secret", 0o644);
    write("etc/ssl/certs/ok.pem", "certificate", 0o644);
    write("etc/ssl/certs/closed.pem", "secret", 0o600);
    write("etc/ssl/certs/both.pem", "-----BEGIN RSA PRIVATE KEY-----\nsecret", 0o644);
    write("etc/pam.d/su", "su", 0o4755);
    write("root/file", "secret", 0o644);
    write("srv/open", "open", 0o644);
    write("srv/closed/file", "secret", 0o644);
    fs::set_permissions(root.join("srv/closed"), fs::Permissions::from_mode(0o750)).unwrap();
    let link = |to: &str, name: &str| symlink(to, root.join("etc").join(name)).unwrap();
    link("../private/key", "ssl/certs/l1");
    link("/etc/shadow-", "ssl/certs/l2");
    link("/root/file", "ssl/certs/l3");
    link("/srv/closed/file", "ssl/certs/l4");
    link("../../ssh/key", "ssl/certs/l5");
    link("/proc/self/environ", "ssl/certs/l6");
    link("/srv", "ssl/certs/l7");
    link("/srv/open", "ssl/certs/copied");
    link("/usr/share/x.pem", "ssl/certs/kept");
    link("ok.pem", "ssl/certs/short");
    link("/etc/ssh", "fonts");
    link("ssl/private", "java-17");
    link("loop", "magic");
    fs::write(root.join("etc/services"), vec![b'x'; 5 << 20]).unwrap();
}

fn skeleton(g: &Ground, image: &providers::PreparedImage) -> PathBuf {
    g.store.layers_dir().join(&image.layers[0])
}

#[tokio::test]
async fn neither_links_nor_modes_nor_names_give_a_secret_away() {
    let machine_dir = tempfile::tempdir().unwrap();
    machine(machine_dir.path());
    let host = machine_dir.path().to_owned();
    let g = Ground::with(&[], Options { host: host.clone(), ..Options::default() });
    let image = g.store.prepare("host").await.unwrap();
    let tree = skeleton(&g, &image);
    let etc = tree.join("etc");
    assert_eq!(names(&etc.join("ssl")), ["certs"]);
    assert_eq!(names(&etc.join("ssl/certs")), ["copied", "kept", "ok.pem", "short"]);
    assert!(fs::symlink_metadata(etc.join("ssl/certs/copied")).unwrap().is_file());
    assert_eq!(fs::read_to_string(etc.join("ssl/certs/copied")).unwrap(), "open");
    assert_eq!(fs::metadata(etc.join("pam.d/su")).unwrap().permissions().mode() & 0o7777, 0o755);
    for absent in ["shadow", "shadow-", "ssh", "fonts", "java-17", "magic", "services"] {
        assert!(fs::symlink_metadata(etc.join(absent)).is_err(), "{absent}");
    }
    let found = std::process::Command::new("grep").args(["-r", "secret"]).arg(&tree).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    let bind = |name: &str| host.join(name).to_string_lossy().into_owned();
    assert_eq!(image.binds, [bind("usr"), bind("lib")]);
    assert_eq!(fs::read_link(tree.join("bin")).unwrap(), Path::new("usr/bin"));
}

#[tokio::test]
async fn a_change_of_the_machine_shows_within_a_minute() {
    let machine_dir = tempfile::tempdir().unwrap();
    machine(machine_dir.path());
    let clock = Arc::new(ManualClock::new(Timestamp::from_unix_nanos(0)));
    let shared: SharedClock = Arc::clone(&clock) as SharedClock;
    let options =
        Options { clock: shared, host: machine_dir.path().to_owned(), ..Options::default() };
    let g = Ground::with(&[], options.clone());
    let first = g.store.prepare("host").await.unwrap();
    fs::write(machine_dir.path().join("etc/profile"), "changed").unwrap();
    clock.advance(Duration::from_secs(59));
    assert_eq!(g.store.prepare("host").await.unwrap(), first, "not looked at again yet");
    clock.advance(Duration::from_secs(2));
    let second = g.store.prepare("host").await.unwrap();
    assert_ne!(second.layers, first.layers);
    let tree = skeleton(&g, &second);
    assert_eq!(fs::read_to_string(tree.join("etc/profile")).unwrap(), "changed");
    // Nothing changed: the same layer, for another process too.
    clock.advance(Duration::from_secs(120));
    assert_eq!(g.store.prepare("host").await.unwrap(), second);
    let other = ImageStore::open_with(g.images(), Default::default(), options).unwrap();
    assert_eq!(other.prepare("host").await.unwrap(), second);
    // The old skeleton goes once nobody keeps it: with the next store that opens.
    crate::support::wait_for("the old skeleton to go", || {
        let _again = g.again();
        !g.store.layers_dir().join(&first.layers[0]).exists()
    });
    assert!(g.store.layers_dir().join(&second.layers[0]).exists());
    assert!(g.store.layers_dir().join(&second.layers[1]).exists());
}

#[tokio::test]
async fn many_at_once_get_one_skeleton() {
    let g = Ground::new();
    let all: Vec<_> = (0..16)
        .map(|_| {
            let store = g.store.clone();
            tokio::spawn(async move { store.prepare("host").await.unwrap() })
        })
        .collect();
    let mut images = Vec::new();
    for one in all {
        images.push(one.await.unwrap());
    }
    images.dedup();
    assert_eq!(images.len(), 1);
    g.assert_clean(2);
}
