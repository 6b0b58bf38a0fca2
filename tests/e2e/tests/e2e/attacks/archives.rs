//! Archives that are sent into a sandbox to get out of it, or to bring down who reads them.

use std::fmt::Debug;
use std::io::Write;
use std::time::Duration;

use client::Error;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::files::Outside;
use super::ground::{Ground, IMAGE, Target};

/// Any of these is answered by then, on a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(60);
/// What the server may grow by, whatever an archive says of itself.
const GROWTH_KB: u64 = 64 * 1024;

/// Its name, its members, and what comes of it.
type Case<'a, T> = (&'a str, Vec<Vec<u8>>, T);

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const SOFT: u8 = b'2';
const DIR: u8 = b'5';

fn header(kind: u8, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o4777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    // As they are: the crate's own ways refuse what is hostile.
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn member(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, link, content.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

async fn send(
    target: &Target<'_>,
    what: &str,
    body: impl AsyncRead + Send + 'static,
) -> Result<(), Error> {
    let path = format!("/workspace/{what}");
    let sent = target.client().upload_archive(&target.id, &path, body);
    let sent = tokio::time::timeout(PROMPT, sent).await;
    let sent = sent.unwrap_or_else(|_| panic!("{what} is not answered"));
    println!("{what}: {:?}", sent.as_ref().err().and_then(Error::code));
    sent
}

fn refused<T: Debug>(what: &str, sent: Result<T, Error>, codes: &[&str]) {
    let error = sent.expect_err(what);
    assert!(error.code().is_some_and(|code| codes.contains(&code)), "{what}: {error:?}");
}

/// As [`refused`], or without an answer, since it goes on sending.
fn cut_off<T: Debug>(what: &str, sent: Result<T, Error>, codes: &[&str]) {
    match sent {
        Err(Error::Broken { .. }) => {}
        sent => refused(what, sent, codes),
    }
}

#[tokio::test]
async fn no_member_of_an_archive_leads_outside() {
    let (ground, outside) = (Ground::new().await, Outside::new());
    let target = ground.spawn(IMAGE).await;
    let neighbour = ground.spawn(IMAGE).await;
    neighbour.shell("echo mine > /workspace/secret; chmod 600 /workspace/secret").await;
    target.shell("mkdir /workspace/other; echo own > /workspace/other/secret").await;
    target.shell("chmod 600 /workspace/other/secret; chmod 700 /workspace/other").await;
    let (path, secret) = (outside.path(), outside.secret());
    let up = "../".repeat(12);
    let (up_path, up_secret) = (format!("{up}{path}"), format!("{up}{secret}"));
    let bad = &["BAD_REQUEST"][..];
    let wrong = &["NOT_A_DIRECTORY", "NOT_A_FILE", "FILE_NOT_FOUND", "BAD_REQUEST", "CONFLICT"][..];
    let file = |name: &str| member(FILE, name, "", b"broke");
    let cases: Vec<Case<'_, &[&str]>> = vec![
        ("dotdot", vec![file("../other/secret")], bad),
        ("dotdot_within", vec![file("a/../../other/secret")], bad),
        ("dotdot_far", vec![file(&up_secret)], bad),
        ("dotdot_directory", vec![member(DIR, "../other", "", b"")], bad),
        ("dotdot_link", vec![member(SOFT, "../other/link", "x", b"")], bad),
        // A link, and then something through it.
        ("through", vec![member(SOFT, "d", path, b""), file("d/secret")], wrong),
        ("through_up", vec![member(SOFT, "d", &up_path, b""), file("d/secret")], wrong),
        ("through_own", vec![member(SOFT, "d", "../other", b""), file("d/secret")], wrong),
        ("through_proc", vec![member(SOFT, "d", "/proc/1/root", b""), file("d/tmp/x")], wrong),
        ("over_link", vec![member(SOFT, "d", "../other", b""), member(DIR, "d", "", b"")], wrong),
        ("link_through", vec![member(SOFT, "d", path, b""), member(SOFT, "d/l", "x", b"")], wrong),
        (
            "hard_through",
            vec![member(SOFT, "d", path, b""), member(HARD, "h", "d/secret", b"")],
            wrong,
        ),
        // Another name for what is not in the archive.
        ("hard_outside", vec![member(HARD, "h", &secret, b"")], wrong),
        ("hard_up", vec![member(HARD, "h", &up_secret, b"")], bad),
        ("hard_own", vec![member(HARD, "h", "../other/secret", b"")], bad),
        ("hard_to_link", vec![member(SOFT, "l", &secret, b""), member(HARD, "h", "l", b"")], wrong),
        ("hard_to_itself", vec![member(HARD, "h", "h", b"")], wrong),
        ("hard_to_directory", vec![member(DIR, "d", "", b""), member(HARD, "h", "d", b"")], wrong),
    ];
    for (what, members, codes) in &cases {
        for (form, packed) in [("", archive(members)), ("_z", zstd(&archive(members)))] {
            let what = format!("{what}{form}");
            let body = std::io::Cursor::new(packed);
            refused(&what, send(&target, &what, body).await, codes);
            outside.is_untouched(&what);
        }
    }
    // These are harmless, and do what they can.
    let harmless: Vec<Case<'_, &str>> = vec![
        ("absolute", vec![file("/etc/passwd")], "test \"$(cat absolute/etc/passwd)\" = broke"),
        (
            "replaced",
            vec![member(SOFT, "f", &secret, b""), file("f")],
            "test ! -L replaced/f && test \"$(cat replaced/f)\" = broke",
        ),
        (
            "nodes",
            vec![
                member(b'3', "char", "", b""),
                member(b'4', "block", "", b""),
                member(b'6', "fifo", "", b""),
                file("after"),
            ],
            "test \"$(ls -A nodes)\" = after",
        ),
        ("dangling", vec![member(SOFT, "l", &up_secret, b"")], "test -L dangling/l"),
    ];
    for (what, members, holds) in harmless {
        send(&target, what, std::io::Cursor::new(archive(&members))).await.unwrap();
        target.shell(&format!("cd /workspace && {holds}")).await;
        outside.is_untouched(what);
    }
    assert_eq!(
        target.shell("cat /workspace/other/secret; ls -A /workspace/other").await,
        "own\nsecret\n"
    );
    assert_eq!(
        target.shell("stat -c %a /workspace/other /workspace/other/secret").await,
        "700\n600\n"
    );
    assert_eq!(neighbour.shell("cat /workspace/secret; ls -A /workspace").await, "mine\nsecret\n");
    target.is_well().await;
    neighbour.is_well().await;
    ground.end().await;
}

#[tokio::test]
async fn an_archive_that_lies_or_never_ends_is_refused_in_time() {
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let neighbour = ground.spawn(IMAGE).await;
    let bad = &["BAD_REQUEST"][..];
    let whole = archive(&[member(FILE, "f", "", &[7; 20_000])]);
    let named = |kind: u8, size: u64| {
        let mut bytes = header(kind, "././@LongLink", "", size).as_bytes().to_vec();
        bytes.extend_from_slice(&[b'a'; 70_000]);
        bytes
    };
    let pax = |records: &str| {
        let mut members = member(b'x', "x", "", records.as_bytes());
        members.extend(member(FILE, "f", "", b"content"));
        archive(&[members])
    };
    let mut damaged = whole.clone();
    damaged[0] ^= 1;
    let deep = format!("{}f", "d/".repeat(3000));
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no_archive", b"plainly no archive".repeat(100)),
        ("damaged", damaged),
        ("cut_header", whole[..300].to_vec()),
        ("cut_content", whole[..9000].to_vec()),
        ("no_end", whole[..whole.len() - 1024].to_vec()),
        ("cut_gzip", gzip(&whole)[..60].to_vec()),
        ("cut_zstd", zstd(&whole)[..30].to_vec()),
        ("gzip_twice", gzip(&gzip(&whole))),
        ("huge_window", window.to_vec()),
        ("more_behind", [&whole[..], &vec![1; 2 << 20]].concat()),
        ("absurd_size", header(FILE, "f", "", u64::MAX).as_bytes().to_vec()),
        ("long_name", named(b'L', 1 << 40)),
        ("longer_name", named(b'L', 60_000)),
        ("long_link", named(b'K', u64::MAX / 2)),
        ("long_records", named(b'x', 1 << 33)),
        ("pax_size", pax("27 size=9223372036854775807\n")),
        ("pax_negative", pax("11 size=-5\n")),
        ("pax_sparse", pax("22 GNU.sparse.major=1\n")),
        ("pax_up", pax("25 path=../../etc/passwd\n")),
        ("pax_broken", pax("999999999999999999999 path=x\n")),
        ("gnu_sparse", archive(&[member(b'S', "f", "", b"")])),
        ("many_levels", {
            let mut name = member(b'L', "././@LongLink", "", deep.as_bytes());
            name.extend(member(FILE, "f", "", b""));
            archive(&[name])
        }),
    ];
    let pid = ground.server().pid();
    send(&target, "first", std::io::Cursor::new(whole.clone())).await.unwrap();
    let before = resident_kb(pid);
    for (what, bytes) in cases {
        refused(what, send(&target, what, std::io::Cursor::new(bytes)).await, bad);
    }

    // Bombs: a few bytes for what no disk here holds.
    let full = &["DISK_FULL"][..];
    let mut bomb = header(FILE, "bomb", "", 1 << 40).as_bytes().to_vec();
    bomb.resize(300 << 20, 0);
    let packed = gzip(&bomb);
    assert!(packed.len() < 1 << 20);
    refused("gzip_bomb", send(&target, "gzip_bomb", std::io::Cursor::new(packed)).await, full);
    let packed = zstd(&bomb);
    assert!(packed.len() < 1 << 20);
    refused("zstd_bomb", send(&target, "zstd_bomb", std::io::Cursor::new(packed)).await, full);
    drop(bomb);
    // More than fits, and what never ends: whoever does not come to read the answer is cut off.
    let start = || std::io::Cursor::new(header(FILE, "f", "", 1 << 60).as_bytes().to_vec());
    let much = start().chain(tokio::io::repeat(0).take(100 << 20));
    refused("much", send(&target, "much", much).await, full);
    let endless = start().chain(tokio::io::repeat(0));
    cut_off("endless", send(&target, "endless", endless).await, full);
    for what in ["much", "endless"] {
        let left = target.client().list_files(&target.id, &format!("/workspace/{what}")).await;
        assert!(left.as_ref().is_ok_and(Vec::is_empty), "half a file is left: {left:?}");
    }
    // An end marker, and zeros behind it.
    cut_off("behind", send(&target, "behind", tokio::io::repeat(0)).await, bad);
    cut_off("garbage", send(&target, "garbage", tokio::io::repeat(b'x')).await, bad);
    let names: Vec<u8> = (0..3000).flat_map(|n| member(FILE, &n.to_string(), "", b"")).collect();
    refused("names", send(&target, "names", std::io::Cursor::new(names)).await, bad);
    let grown = resident_kb(pid).saturating_sub(before);
    assert!(grown < GROWTH_KB, "the server grew by {grown} KiB");

    target.shell("rm -rf /workspace/*").await;
    send(&target, "last", std::io::Cursor::new(whole)).await.unwrap();
    assert_eq!(target.shell("wc -c < /workspace/last/f").await, "20000\n");
    target.is_well().await;
    neighbour.is_well().await;
    ground.end().await;
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
