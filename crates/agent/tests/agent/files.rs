//! The file operations.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::agent::{AgentErrorCode as Code, Body, Event, FileEntry, Kind, ReadRange, Request};

use crate::harness::*;

fn entries(result: Result) -> Vec<FileEntry> {
    let all = result.events.iter().flat_map(|e| match e {
        Event::Entries { entries } => entries.clone(),
        other => panic!("{other:?}"),
    });
    let all = all.collect();
    result.done();
    all
}

fn list(client: &mut Client, path: &str) -> Vec<FileEntry> {
    entries(client.call(&Request::List { path: path.into() }))
}

fn glob(client: &mut Client, pattern: &str) -> Vec<String> {
    let result = client.call(&Request::Glob { pattern: pattern.into() });
    let all = result.events.iter().flat_map(|e| match e {
        Event::Paths { paths } => paths.clone(),
        other => panic!("{other:?}"),
    });
    let all = all.collect();
    result.done();
    all
}

fn stat(client: &mut Client, path: &str) -> FileEntry {
    match client.call(&Request::Stat { path: path.into() }).body() {
        Body::File { entry } => entry,
        other => panic!("{other:?}"),
    }
}

fn delete(client: &mut Client, path: &str, recursive: bool) -> Result {
    client.call(&Request::Delete { path: path.into(), recursive })
}

fn rename(client: &mut Client, from: &str, to: &str) -> Result {
    client.call(&Request::Move { from: from.into(), to: to.into() })
}

#[test]
fn a_file_is_written_read_and_described() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    client.write("deep/er/file.bin", None, &content).done();
    let result = client.read("/workspace/deep/er/file.bin");
    assert!(result.out == content);
    assert_eq!(result.events, [Event::Size { bytes: 3_000_000, mode: 0o644 }]);
    let entry = stat(&mut client, "deep//er/../er/./file.bin");
    assert_eq!(entry.path, "/workspace/deep/er/file.bin");
    assert_eq!((entry.size, entry.mode, entry.is_dir), (3_000_000, 0o644, false));
    assert_eq!(
        entry.mtime,
        std::fs::metadata(agent.path("workspace/deep/er/file.bin")).unwrap().mtime()
    );
    assert_eq!(stat(&mut client, "deep").mode, 0o755);
    client.write("empty", Some(0o4755), b"").done();
    assert_eq!(stat(&mut client, "empty").mode, 0o4755);
    assert_eq!(client.read("empty").out, b"");
}

#[test]
fn overwriting_keeps_mode_and_owner() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.write("f", Some(0o640), b"one").done();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(agent.path("workspace/f"), Some(1234), Some(1235)).unwrap();
    }
    client.write("f", None, b"two").done();
    let meta = std::fs::metadata(agent.path("workspace/f")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    if root {
        assert_eq!((meta.uid(), meta.gid()), (1234, 1235));
    }
    client.write("f", Some(0o600), b"three").done();
    assert_eq!(stat(&mut client, "f").mode, 0o600);
    assert_eq!(client.read("f").out, b"three");
}

#[test]
fn errors_say_what_kind_of_thing_is_there() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.write("file", None, b"x").done();
    std::fs::create_dir(agent.path("workspace/dir")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, agent.path("workspace/fifo"), 0o600.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(agent.path("workspace/socket")).unwrap();
    for (path, code) in [
        ("none", Code::FileNotFound),
        ("none/below", Code::FileNotFound),
        ("dir", Code::NotAFile),
        ("/", Code::NotAFile),
        ("fifo", Code::NotAFile),
        ("socket", Code::NotAFile),
        ("file/below", Code::NotADirectory),
        ("", Code::BadRequest),
        (" ", Code::BadRequest),
        ("a\0b", Code::BadRequest),
        (&"x/".repeat(3000), Code::BadRequest),
    ] {
        assert_eq!(client.read(path).error(), code, "read {path:.20}");
        if code != Code::FileNotFound {
            assert_eq!(client.write(path, None, b"y").error(), code, "write {path:.20}");
        }
    }
    for (path, code) in [("file", Code::NotADirectory), ("none", Code::FileNotFound)] {
        assert_eq!(client.call(&Request::List { path: path.into() }).error(), code);
    }
    assert_eq!(client.call(&Request::Stat { path: "none".into() }).error(), Code::FileNotFound);
    assert_eq!(delete(&mut client, "none", true).error(), Code::FileNotFound);
    let chmod = |path: &str| Request::Chmod { path: path.into(), mode: 0o600 };
    assert_eq!(client.call(&chmod("none")).error(), Code::FileNotFound);
    client.call(&chmod("file")).done();
    assert_eq!(stat(&mut client, "file").mode, 0o600);
    client.call(&chmod("dir")).done();
}

#[test]
fn messages_name_inside_paths_only() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let outside = agent.dir.path().to_str().unwrap().to_owned();
    for request in [
        Request::Read { path: "none".into(), range: None },
        Request::Delete { path: "/none/x".into(), recursive: true },
        Request::Move { from: "none".into(), to: "other".into() },
    ] {
        let text = format!("{:?}", client.call(&request));
        assert!(text.contains("none") && !text.contains(&outside), "{text}");
    }
}

#[test]
fn lists_are_sorted_and_follow_links() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let dir = agent.path("workspace/l");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::write(dir.join("b"), "12345").unwrap();
    symlink("/workspace/l/b", dir.join("a-link")).unwrap();
    symlink("sub", dir.join("dir-link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    let all = list(&mut client, "l");
    let seen: Vec<(&str, u64, bool)> =
        all.iter().map(|e| (e.path.as_str(), e.size, e.is_dir)).collect();
    let size = std::fs::metadata(dir.join("sub")).unwrap().size();
    assert_eq!(
        seen,
        [
            ("/workspace/l/a-link", 5, false),
            ("/workspace/l/b", 5, false),
            ("/workspace/l/dangling", 8, false),
            ("/workspace/l/dir-link", size, true),
            ("/workspace/l/sub", size, true),
        ]
    );
    assert!(list(&mut client, "l/sub").is_empty());
    assert!(list(&mut client, "/").iter().any(|e| e.path == "/workspace"));
    assert_eq!(stat(&mut client, "l/dangling").size, 8);
    assert_eq!(list(&mut client, "l/dir-link").len(), 0);
}

#[test]
fn big_directories_come_in_pieces_without_holding_others_up() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let dir = agent.path("workspace/big");
    std::fs::create_dir(&dir).unwrap();
    for n in 0..20_000 {
        std::fs::write(dir.join(format!("file-with-a-long-name-{n:06}")), "").unwrap();
    }
    let big = client.begin(&Request::List { path: "big".into() });
    let ping = client.begin(&Request::Status);
    let mut results = [Result::default(), Result::default()];
    let mut order = Vec::new();
    while results.iter().any(|r| r.end.is_none()) {
        let got = client.next();
        if got.kind == Kind::End {
            order.push(got.call);
        }
        let at = usize::from(got.call == ping);
        client.take(&mut results[at], got);
    }
    assert_eq!(order, [ping, big]);
    let [list, _] = results;
    assert!(list.events.len() > 10);
    let all = entries(list);
    assert_eq!(all.len(), 20_000);
    assert!(all.is_sorted_by(|a, b| a.path < b.path));
}

#[test]
fn globs_find_what_a_shell_would() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let w = agent.path("workspace");
    for path in ["g/a.txt", "g/b.md", "g/.hidden.txt", "g/x/c.txt", "g/x/y/d.txt", "g/x/y/z/e.txt"]
    {
        client.write(path, None, b"").done();
    }
    symlink("x", w.join("g/link")).unwrap();
    symlink("/nowhere", w.join("g/dangling.txt")).unwrap();
    let mut check = |pattern: &str, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|p| format!("/workspace/g/{p}")).collect();
        assert_eq!(glob(&mut client, pattern), expected, "{pattern}");
    };
    check("/workspace/g/*.txt", &[".hidden.txt", "a.txt", "dangling.txt"]);
    check("g/?.*", &["a.txt", "b.md"]);
    check("g/[ab].*", &["a.txt", "b.md"]);
    check("g/a.txt", &["a.txt"]);
    check("g/none", &[]);
    check("none/*/deep", &[]);
    check("g/*/c.txt", &["link/c.txt", "x/c.txt"]);
    check("/**/[a-e].txt", &["a.txt", "x/c.txt", "x/y/d.txt", "x/y/z/e.txt"]);
    check("g/**/y/**/*.txt", &["x/y/d.txt", "x/y/z/e.txt"]);
    check("g/x/**", &["x/c.txt", "x/y", "x/y/d.txt", "x/y/z", "x/y/z/e.txt"]);
    check("g/x/../x/c.txt/", &["x/c.txt"]);
    for bad in ["", "[a", "/", "x\0"] {
        let result = client.call(&Request::Glob { pattern: bad.into() });
        assert_eq!(result.error(), Code::BadRequest, "{bad}");
    }
}

#[test]
fn hostile_globs_end_and_hold_nobody_up() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let w = agent.path("workspace");
    // Every directory is every other: `*/*/*/…` has no end in sight.
    for n in 0..10 {
        symlink(".", w.join(format!("loop{n}"))).unwrap();
    }
    let pattern = format!("{}none", "*/".repeat(30));
    let endless = client.begin(&Request::Glob { pattern });
    for _ in 0..20 {
        let started = now();
        let ping = client.begin(&Request::Status);
        let result = client.finish(ping);
        assert!(result.end.is_some());
        assert!((now() - started).as_millis() < 1000);
    }
    client.cancel(endless);
    assert_eq!(client.finish(endless).error(), Code::Cancelled);
    let result = client.call(&Request::Glob { pattern: "*/*/*/*/*/*".into() });
    assert_eq!(result.error(), Code::TooLarge);
    // `**` does not go through links, so the same tree is small for it.
    assert_eq!(glob(&mut client, "**/loop0").len(), 1);
    assert_eq!(glob(&mut client, &format!("{}loop0", "**/".repeat(25))).len(), 1);
}

#[test]
fn deleting_stops_at_full_directories_and_links() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.write("d/one", None, b"").done();
    client.write("keep/me", None, b"").done();
    symlink("../keep", agent.path("workspace/d/link")).unwrap();
    symlink("keep", agent.path("workspace/top-link")).unwrap();
    assert_eq!(delete(&mut client, "d", false).error(), Code::Conflict);
    delete(&mut client, "d", true).done();
    assert!(!agent.path("workspace/d").exists());
    delete(&mut client, "top-link", true).done();
    assert!(agent.path("workspace/keep/me").exists());
    delete(&mut client, "keep/me", false).done();
    delete(&mut client, "keep/", false).done();
    for root in ["/", "//", "/workspace/..", "."] {
        assert_eq!(delete(&mut client, root, true).error(), Code::BadRequest, "{root}");
    }
    assert!(agent.root().exists());
}

#[test]
fn deep_and_wide_trees_are_deleted() {
    let agent = Agent::start();
    let mut client = agent.connect();
    // Deeper than any path may be long: made from within.
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let mut at = openat(CWD, agent.path("workspace"), OFlags::PATH, Mode::empty()).unwrap();
    for n in 0..5000 {
        let name = if n == 0 { "deep" } else { "d" };
        mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, name, OFlags::PATH, Mode::empty()).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(&at, "file", flags, Mode::from_raw_mode(0o644)).unwrap());
    }
    let wide = agent.path("workspace/deep/wide");
    std::fs::create_dir(&wide).unwrap();
    for n in 0..3000 {
        std::fs::write(wide.join(n.to_string()), "").unwrap();
    }
    let files = agent.open_files();
    let call = client.begin(&Request::Delete { path: "deep".into(), recursive: true });
    let mut other = agent.connect();
    let mut most = 0;
    while !client.readable(std::time::Duration::ZERO) {
        other.call(&Request::Status).body();
        most = most.max(agent.open_files());
    }
    client.finish(call).done();
    assert!(!agent.path("workspace/deep").exists());
    assert!(most < files + 40, "{files} descriptors grew to {most}");
}

#[test]
fn moving_renames_and_makes_parents() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.write("a", None, b"content").done();
    let inode_before = inode(&agent.path("workspace/a"));
    rename(&mut client, "a", "/new/place/b").done();
    assert_eq!(inode(&agent.path("new/place/b")), inode_before);
    symlink("/new/place/b", agent.path("workspace/link")).unwrap();
    rename(&mut client, "link", "link2").done();
    assert!(agent.path("workspace/link2").symlink_metadata().unwrap().is_symlink());
    client.write("full/x", None, b"").done();
    client.write("dir/y", None, b"").done();
    assert_eq!(rename(&mut client, "dir", "full").error(), Code::Conflict);
    assert_eq!(rename(&mut client, "/new/place/b", "full").error(), Code::NotAFile);
    assert_eq!(rename(&mut client, "dir", "full/x").error(), Code::NotADirectory);
    assert_eq!(rename(&mut client, "dir", "dir/below").error(), Code::BadRequest);
    assert_eq!(rename(&mut client, "none", "made/for/it").error(), Code::FileNotFound);
    assert!(!agent.path("workspace/made").exists());
    for (from, to) in [("/", "x"), ("dir", "/")] {
        assert_eq!(rename(&mut client, from, to).error(), Code::BadRequest);
    }
}

#[test]
fn readers_see_the_old_file_or_the_new_one() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let versions: Vec<Vec<u8>> = (b'a'..b'e').map(|b| vec![b; 200_000]).collect();
    client.write("f", None, &versions[0]).done();
    let path = agent.path("workspace/f");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let seen = std::fs::read(&path).unwrap();
                assert!(versions.contains(&seen), "{} bytes of a mixture", seen.len());
                reads += 1;
            }
            reads
        });
        for n in 0..100 {
            client.write("f", None, &versions[n % versions.len()]).done();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

fn names(agent: &Agent) -> Vec<String> {
    std::fs::read_dir(agent.path("workspace"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn writes_that_are_given_up_leave_nothing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.write("f", None, b"old").done();
    let begin = |client: &mut Client| {
        let call = client.begin(&Request::Write { path: "f".into(), mode: None });
        client.data(call, &[b'n'; 1000]);
        wait_for("the hidden file is there", || names(&agent).len() == 2);
        call
    };
    let call = begin(&mut client);
    client.cancel(call);
    assert_eq!(client.finish(call).error(), Code::Cancelled);
    assert_eq!(names(&agent), ["f"]);
    begin(&mut client);
    drop(client);
    wait_for("the hidden file is gone", || names(&agent) == ["f"]);
    assert_eq!(agent.connect().read("f").out, b"old");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let agent = Agent::start();
    let mut client = agent.connect();
    let small = agent.path("workspace/small");
    std::fs::create_dir(&small).unwrap();
    let mount = |args: &[&str]| {
        assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small.to_str().unwrap()]);
    let call = client.begin(&Request::Write { path: "small/f".into(), mode: None });
    let mut result = Result::default();
    for _ in 0..4 {
        client.data(call, &[1; 64 * 1024]);
    }
    // The rest as far as there is credit, until the disk is full.
    while result.end.is_none() {
        let got = client.next();
        if got.kind == Kind::Credit {
            client.data(call, &[1; 64 * 1024]);
        } else {
            client.take(&mut result, got);
        }
    }
    let left = std::fs::read_dir(&small).unwrap().count();
    // A file moves between file systems as a copy.
    client.write("small/g", Some(0o600), b"moved").done();
    rename(&mut client, "small/g", "g").done();
    let across = (client.read("g").out, stat(&mut client, "g").mode, small.join("g").exists());
    mount(&["umount", small.to_str().unwrap()]);
    assert_eq!(result.error(), Code::DiskFull);
    assert_eq!(left, 0);
    assert_eq!(across, (b"moved".to_vec(), 0o600, false));
}

#[test]
fn a_part_of_a_file_is_read_alone() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let all: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(agent.path("workspace/f"), &all).unwrap();
    for (start, end, part) in [
        (Some(0), Some(0), &all[..1]),
        (Some(70_001), Some(150_000), &all[70_001..150_001]),
        (Some(199_990), Some(u64::MAX), &all[199_990..]),
        (None, Some(10), &all[199_990..]),
        (Some(200_000), None, &[]),
        (Some(9), Some(8), &[]),
    ] {
        let range = Some(ReadRange { start, end });
        let read = client.call(&Request::Read { path: "f".into(), range });
        assert_eq!(read.events[0], Event::Size { bytes: 200_000, mode: 0o644 });
        assert!(read.out == part, "{start:?} to {end:?}");
        read.done();
    }
}

#[test]
fn reading_waits_for_credit_and_for_nothing_else() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.granting = false;
    std::fs::write(agent.path("workspace/f"), vec![7; 1 << 20]).unwrap();
    let stalled = client.begin(&Request::Read { path: "f".into(), range: None });
    let mut got = 0;
    while got < 256 * 1024 {
        let frame = client.next();
        assert_eq!(frame.call, stalled);
        got += if frame.kind == Kind::Data { frame.payload.len() } else { 0 };
    }
    client.granting = true;
    let other = client.call(&Request::Stat { path: "f".into() });
    assert!(other.end.is_some());
    client.grant(stalled, 64 << 20);
    client.granting = false;
    let rest = client.finish(stalled);
    assert_eq!(got + rest.out.len(), 1 << 20);
    rest.done();
    let meta = std::fs::metadata(agent.path("workspace/f")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o644);
}
