//! A server dies, or a client leaves, while an archive is on its way: files are whole or not there.

use std::time::Duration;

use testkit::wait_for;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::slate::assert_clean;
use super::world::{SOON, Server, World, in_time};

const LARGE: usize = 8 << 20;

/// A file, and half of a second. The client holds its breath then, until the sender is dropped.
async fn half_an_archive(server: &Server, id: &str) -> (JoinHandle<()>, DuplexStream) {
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["whole", "half"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(LARGE as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &vec![7_u8; LARGE][..]).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let (mut sender, body) = tokio::io::duplex(64 * 1024);
    let (client, to) = (server.client.clone(), id.to_owned());
    let sending = tokio::spawn(async move {
        let sent = client.upload_archive(&to, "/workspace/up", body).await;
        assert!(sent.is_err(), "{sent:?}");
    });
    in_time("half an archive", sender.write_all(&bytes[..LARGE + LARGE / 2])).await.unwrap();
    wait_for("the first file", SOON, async || {
        let seen = server.said(id, "ls -A up 2>/dev/null | wc -l; wc -c < up/whole || true").await;
        if seen == format!("2\n{LARGE}") { Ok(()) } else { Err(seen) }
    })
    .await;
    (sending, sender)
}

/// The first file is whole, and of the second nothing is left.
async fn only_the_first(server: &Server, id: &str) {
    wait_for("what was begun to be gone", SOON, async || {
        let seen = server.said(id, "ls -A up; wc -c < up/whole").await;
        if seen == format!("whole\n{LARGE}") { Ok(()) } else { Err(seen) }
    })
    .await;
    server.said(id, "rm -r up").await;
}

async fn broken_off(provider: &'static str) {
    let mut world = World::new(provider);
    let mut server = world.start().await;
    let id = server.spawn().await;

    let (sending, sender) = half_an_archive(&server, &id).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    drop(sender);
    only_the_first(&server, &id).await;

    let (sending, sender) = half_an_archive(&server, &id).await;
    server.kill().await;
    in_time("the client to hear of it", sending).await.unwrap();
    drop(sender);
    server = world.start().await;
    assert_clean(&world, &server, &[&id]).await;
    only_the_first(&server, &id).await;

    // On the way out: nothing in the sandbox changes, and nothing goes on packing.
    server
        .said(&id, "mkdir down; for i in 1 2 3; do head -c 8000000 /dev/zero > down/$i; done")
        .await;
    for format in ["tar", "gzip", "zstd"] {
        let archive = server.client.download_archive(&id, "/workspace/down", format);
        let mut archive = in_time("an archive", archive).await.unwrap();
        in_time("a piece", archive.next()).await.unwrap();
        server.kill().await;
        let rest = async { while let Ok(Some(_)) = archive.next().await {} };
        in_time("its end", rest).await;
        server = world.start().await;
        assert_clean(&world, &server, &[&id]).await;
        assert_eq!(server.said(&id, "ls -A down | wc -l").await, "3");
    }
    // Each takes a place among those that may be under way: all are free again.
    for _ in 0..40 {
        let archive = server.client.download_archive(&id, "/workspace/down", "tar");
        let mut archive = in_time("an archive", archive).await.unwrap();
        in_time("a piece", archive.next()).await.unwrap();
    }
    wait_for("the last of them to be let go", SOON, async || {
        let asked = server.client.download_archive(&id, "/workspace/down", "tar").await;
        match asked {
            Ok(mut archive) => archive.next().await.map(drop).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_breaks_off_leaves_no_residue_on_native() {
    in_minutes(broken_off("native")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_breaks_off_leaves_no_residue_on_mock() {
    in_minutes(broken_off("mock")).await;
}

async fn in_minutes(work: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(300), work).await.expect("it ends");
}
