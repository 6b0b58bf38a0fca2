//! Images that lead out of themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::control;
use super::files::{Outside, spawned};
use super::ground::{Ground, SECRET, import, try_import};

/// Puts a link in the place of a file or folder.
fn relink(root: &Path, name: &str, target: &str) {
    let place = root.join(name);
    if place.is_dir() {
        fs::remove_dir_all(&place).unwrap();
    } else if place.symlink_metadata().is_ok() {
        fs::remove_file(&place).unwrap();
    }
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    symlink(target, &place).unwrap();
}

/// Names that the sandbox itself mounts on, makes, or writes to.
const PLACES: [&str; 10] = [
    "workspace",
    "tmp",
    "proc",
    "dev",
    "sys",
    "root",
    "run",
    "etc",
    "etc/hosts",
    "etc/resolv.conf",
];

#[tokio::test]
async fn links_in_the_place_of_folders_lead_nowhere() {
    if !control::possible() {
        return;
    }
    let (ground, outside) = (Ground::new().await, Outside::new());
    let targets = [outside.path().to_owned(), format!("{}{}", "../".repeat(12), outside.path())];
    let mut ran_at_all = 0;
    for (n, place) in PLACES.into_iter().enumerate() {
        let name = format!("trick-{n}:latest");
        // In turns: each place with one kind of link is enough, as both end in the same code.
        let leads = &targets[n % 2];
        let (taken, words) = try_import(ground.system(), &name, &|root| relink(root, place, leads));
        if !taken {
            println!("a link at /{place} is refused: {words}");
            continue;
        }
        let Some(target) = spawned(&ground, &name).await else {
            outside.is_untouched(place);
            continue;
        };
        ran_at_all += 1;
        let client = ground.client();
        for path in [format!("/{place}/secret"), format!("/{place}")] {
            let read = client.read_file(&target.id, &path).await.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&read).contains(SECRET), "{path}");
        }
        let _ = client.write_file(&target.id, &format!("/{place}/planted"), "x", None).await;
        let _ = client.write_file(&target.id, &format!("/{place}"), "x", None).await;
        let words = ["sh", "-c", "echo x >planted; cat secret; echo ran"];
        let ran = target.exec(&words, "10s").await;
        let seen = format!("{ran:?}");
        assert!(!seen.contains(SECRET), "{place}: {seen}");
        outside.is_untouched(place);
        // Kernel folders are real ones, whatever the image put there.
        if ran.is_ok_and(|done| done.stdout.ends_with("ran\n")) {
            let real = "test -e /proc/self/status && test -c /dev/null && echo real";
            assert_eq!(target.shell(real).await, "real\n", "{place}");
        }
        client.destroy(&target.id, None).await.unwrap();
    }
    assert!(ran_at_all > 1, "all but {ran_at_all} were refused: that is no test");
    ground.end().await;
}

#[tokio::test]
async fn devices_in_an_image_are_none() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let node = |root: &Path, name: &str, words: &[&str]| {
        let place = root.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let made = Command::new("mknod").arg("-m666").arg(place).args(words).status().unwrap();
        assert!(made.success());
    };
    let (taken, words) = try_import(ground.system(), "devices:latest", &|root| {
        node(root, "opt/loop", &["b", "7", "0"]);
        node(root, "opt/mem", &["c", "1", "1"]);
        node(root, "opt/zero", &["c", "1", "5"]);
        node(root, "dev/zero", &["b", "7", "0"]);
    });
    println!("an image with devices: {words}");
    if taken && let Some(target) = spawned(&ground, "devices:latest").await {
        for folder in ["/opt", "/dev"] {
            let seen = target.try_one(&format!("device_below={folder}")).await;
            assert_eq!(seen.error(), Some("ENODEV"), "{seen:?}");
        }
        assert_eq!(target.shell("test -c /dev/zero && echo real").await, "real\n");
    }
    ground.end().await;
}

/// A program of the image that belongs to root and says so.
#[tokio::test]
async fn suid_programs_of_an_image_gain_nothing() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    import(ground.system(), "suid:latest", &|root| {
        let program = root.join("bin/suid");
        fs::copy(root.join("bin/attacker"), &program).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o6755);
        fs::set_permissions(program, mode).unwrap();
    });
    let target = spawned(&ground, "suid:latest").await.expect("such images are common");
    assert_eq!(target.try_one("suid=/bin/suid").await.error(), Some("EPERM"));
    ground.end().await;
}
