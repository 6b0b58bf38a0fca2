//! An import of an image is killed at every step of it, beside a server that works on.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use client::api::SpawnRequest;
use testkit::{busybox_rootfs, wait_for};
use types::failpoint;

use super::slate::assert_clean;
use super::world::{SOON, World, in_time, names};

#[tokio::test]
async fn an_import_killed_at_any_step_leaves_nothing() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no steps to be killed at");
        return;
    }
    let mut world = World::new("native");
    let server = world.start().await;
    let resident = server.spawn().await;
    let images = world.system.data_dir().join("images");
    let before = names(&images.join("layers"));
    let source = tempfile::tempdir().unwrap();
    busybox_rootfs(source.path()).unwrap();
    let path = source.path().to_str().unwrap();
    for point in failpoint::ALL.iter().filter(|p| p.starts_with("images.")) {
        // Its content is its own, so that no step is left out.
        fs::write(source.path().join("etc/which"), point).unwrap();
        let import = ["image", "import", path, "--tag", "late:1"];
        let mut killed = world.system.command(&import);
        let output = killed.env("STACYVM_FAILPOINT", point).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point}: it came past it");
        // Half an image has no name.
        let wanted = SpawnRequest { image: Some("late:1".to_owned()), ..SpawnRequest::default() };
        let refused = in_time("a spawn", server.client.spawn(&wanted)).await.expect_err(point);
        assert_eq!(refused.code(), Some("IMAGE_NOT_FOUND"), "{point}: {refused}");
        // The next import clears up, and succeeds.
        let done = world.system.command(&import).output().unwrap();
        assert!(done.status.success(), "{point}: {}", String::from_utf8_lossy(&done.stderr));
        let made = in_time("a spawn", server.client.spawn(&wanted)).await.expect(point);
        assert_eq!(server.said(&made.id, "cat /etc/which").await, *point);
        server.destroy(&made.id).await;
        let removed = world.system.command(&["image", "rm", "late:1"]).output().unwrap();
        assert!(removed.status.success(), "{point}: {}", String::from_utf8_lossy(&removed.stderr));
        wait_for("the store to be as it was", SOON, async || {
            // Each command that opens the store sweeps it.
            world.system.command(&["image", "ls"]).output().unwrap();
            let left = (names(&images.join("tmp")), names(&images.join("layers")));
            if left == (vec![], before.clone()) {
                Ok(())
            } else {
                Err(format!("{point}: {left:?}"))
            }
        })
        .await;
        assert_clean(&world, &server, &[&resident]).await;
    }
    server.destroy(&resident).await;
    server.stop().await;
    world.assert_nothing_left().await;
}
