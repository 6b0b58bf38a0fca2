//! Files and directories in and out of sandboxes by `stacyvm cp`, and how much memory that takes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::e2e::crashes::world::{Server, World};

/// How much the server may grow, however large a file is.
const GROWTH_KB: u64 = 48 * 1024;

fn cp(
    world: &World,
    server: &Server,
    src: &str,
    dst: &str,
    input: &[u8],
) -> (i32, Vec<u8>, String) {
    let url = server.running.url();
    let mut command = world.system.command(&["--server", &url, "cp", src, dst]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that reads nothing closes it.
        let _ = stdin.write_all(&input);
    });
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code().unwrap_or(-1), done.stdout, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn bug_50_files_directories_and_pipes_are_copied() {
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    let dir = tempfile::tempdir().unwrap();
    let here = |path: &str| dir.path().join(path).to_str().unwrap().to_owned();
    let inside = |path: &str| format!("{id}:{path}");
    let ok = |src: &str, dst: &str, input: &[u8]| {
        let (code, out, said) = cp(&world, &server, src, dst, input);
        assert_eq!(code, 0, "cp {src} {dst}: {said}");
        out
    };
    // Bytes that are no text.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    fs::write(here("f"), &bytes).unwrap();
    fs::set_permissions(here("f"), fs::Permissions::from_mode(0o750)).unwrap();
    ok(&here("f"), &inside("/workspace/new/f"), b"");
    ok(&here("f"), &inside("/workspace/new"), b"");
    assert_eq!(server.said(&id, "stat -c '%a %s' new/f").await, "750 3000000");
    ok(&inside("/workspace/new/f"), &here("back"), b"");
    assert!(fs::read(here("back")).unwrap() == bytes);
    assert_eq!(fs::metadata(here("back")).unwrap().permissions().mode() & 0o777, 0o750);
    ok("-", &inside("piped"), b"from a pipe");
    assert_eq!(ok(&inside("/workspace/piped"), "-", b""), b"from a pipe");
    // A directory.
    fs::create_dir_all(here("d/sub")).unwrap();
    fs::write(here("d/sub/g"), "g").unwrap();
    symlink("sub/g", here("d/link")).unwrap();
    ok(&here("d"), &inside("/workspace/e"), b"");
    assert_eq!(server.said(&id, "cat e/sub/g; readlink e/link").await, "gsub/g");
    ok(&here("d"), &inside("/workspace/e"), b"");
    assert_eq!(server.said(&id, "cat e/d/sub/g").await, "g");
    ok(&inside("/workspace/e"), &here("out"), b"");
    assert_eq!(fs::read_to_string(here("out/d/sub/g")).unwrap(), "g");
    assert_eq!(fs::read_link(here("out/link")).unwrap(), Path::new("sub/g"));
    // From one sandbox to another.
    let other = server.spawn().await;
    let there = |path: &str| format!("{other}:{path}");
    ok(&inside("/workspace/e"), &there("/workspace/e"), b"");
    assert_eq!(server.said(&other, "cat e/sub/g e/d/sub/g; readlink e/link").await, "ggsub/g");
    ok(&inside("/workspace/e"), &there("/workspace/e"), b"");
    assert_eq!(server.said(&other, "cat e/e/d/sub/g").await, "g");
    ok(&inside("/workspace/new/f"), &there("/workspace/deep/f"), b"");
    ok(&inside("/workspace/new/f"), &there("/workspace/deep/"), b"");
    assert_eq!(server.said(&other, "stat -c '%a %s' deep/f").await, "750 3000000");
    assert!(ok(&there("/workspace/deep/f"), "-", b"") == bytes);
    // What does not fit breaks off, and says why; a file is whole or not there.
    server.said(&id, "head -c 50000000 /dev/zero > big").await;
    server.said(&other, "head -c 40000000 /dev/zero > full").await;
    let (code, _, said) = cp(&world, &server, &inside("/workspace/big"), &there("/b"), b"");
    assert!(code != 0 && said.contains("no space left"), "{code} {said}");
    assert_eq!(server.sh(&other, "ls /b").await.exit_code, 1);
    server.destroy(&other).await;
    let archive = ok(&inside("/workspace/e"), "-", b"");
    assert!(archive.len() % 512 == 0 && archive.len() > 2048);
    for (src, dst) in [
        (inside("/none"), here("x")),
        (here("none"), inside("/x")),
        (here("f"), here("x")),
        (inside("/workspace/e"), inside("/x")),
        (inside("/none"), "sb-none:/x".to_owned()),
        ("sb-none:/x".to_owned(), here("x")),
    ] {
        let (code, _, said) = cp(&world, &server, &src, &dst, b"");
        assert!(code != 0 && !said.is_empty(), "cp {src} {dst}: {code} {said}");
        assert!(!Path::new(&here("x")).exists());
    }
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

/// `COPY_MIB`: how large the file is.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods)] // a test's own switch
async fn bug_32_a_large_file_leaves_the_servers_memory_flat() {
    let mib: u64 = std::env::var("COPY_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(256);
    let mut world = World::new("mock");
    let server = world.start().await;
    let id = server.spawn().await;
    let client = &server.client;
    // Once at first: what is set up for a copy is there from then on.
    client.upload(&id, "small", None, tokio::io::repeat(1).take_bytes(1 << 20)).await.unwrap();
    reset_peak(server.running.pid());
    let before = peak_kb(server.running.pid());
    let zeros = tokio::io::repeat(0).take_bytes(mib << 20);
    let written = client.upload(&id, "large", None, zeros).await.unwrap();
    assert_eq!(written.size, mib << 20);
    let mut content = client.download(&id, "large").await.unwrap();
    let mut got = 0;
    while let Some(piece) = content.next().await.unwrap() {
        got += piece.len() as u64;
    }
    assert_eq!(got, mib << 20);
    let mut archive = client.download_archive(&id, "/workspace", "gzip").await.unwrap();
    let mut packed = 0;
    while let Some(piece) = archive.next().await.unwrap() {
        packed += piece.len() as u64;
    }
    assert!(packed > 0 && packed < (mib << 20) / 10, "{packed}");
    let after = peak_kb(server.running.pid());
    println!("{mib} MiB each way: {before} KiB before, {after} KiB at most");
    assert!(after < before + GROWTH_KB, "the server grew from {before} to {after} KiB");
    server.destroy(&id).await;
    server.stop().await;
}

fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn peak_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

trait TakeBytes: Sized {
    fn take_bytes(self, bytes: u64) -> tokio::io::Take<Self>;
}

impl TakeBytes for tokio::io::Repeat {
    fn take_bytes(self, bytes: u64) -> tokio::io::Take<Self> {
        tokio::io::AsyncReadExt::take(self, bytes)
    }
}
