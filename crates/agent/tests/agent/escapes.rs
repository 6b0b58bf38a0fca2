//! Attempts to reach files outside of the root, through an agent that could (it runs as us).

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use protocol::agent::{AgentErrorCode as Code, Body, Event, Request};

use crate::harness::*;

/// A directory beside the root, with a secret in it.
fn outside(agent: &Agent) -> PathBuf {
    let dir = agent.dir.path().join("outside");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("secret"), "secret").unwrap();
    dir
}

fn unharmed(dir: &std::path::Path) {
    assert_eq!(std::fs::read_to_string(dir.join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn links_and_dots_stay_inside() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let out = outside(&agent);
    let w = agent.path("workspace");
    symlink(&out, w.join("absolute")).unwrap();
    symlink("../../outside", w.join("relative")).unwrap();
    symlink(out.join("secret"), w.join("file")).unwrap();
    symlink("/proc/self/root", w.join("magic")).unwrap();
    let secret = out.join("secret");
    for path in [
        "absolute/secret",
        "relative/secret",
        "file",
        "../../outside/secret",
        "/../../../../outside/secret",
        "magic/etc/passwd",
        secret.to_str().unwrap(),
    ] {
        assert_eq!(client.read(path).error(), Code::FileNotFound, "{path}");
        let result = client.call(&Request::Chmod { path: path.into(), mode: 0o777 });
        assert_eq!(result.error(), Code::FileNotFound, "{path}");
    }
    // A write follows them to where they lead inside, if that is there.
    for path in ["absolute/secret", "relative/made"] {
        assert_eq!(client.write(path, None, b"inside").error(), Code::FileNotFound, "{path}");
    }
    let within = agent.path(out.to_str().unwrap());
    std::fs::create_dir_all(&within).unwrap();
    std::fs::create_dir(agent.path("outside")).unwrap();
    client.write("absolute/secret", None, b"inside").done();
    client.write("relative/made", None, b"inside").done();
    client.write("file", None, b"inside").done();
    client.call(&Request::Move { from: "file".into(), to: "relative/moved".into() }).done();
    unharmed(&out);
    assert_eq!(std::fs::read_to_string(agent.path("outside/made")).unwrap(), "inside");
    let result = client.call(&Request::Glob { pattern: "/workspace/absolute/*".into() });
    let found = vec!["/workspace/absolute/secret".to_owned()];
    assert_eq!(result.events, [Event::Paths { paths: found }]);
    for link in ["absolute", "relative"] {
        client.call(&Request::Delete { path: link.into(), recursive: true }).done();
    }
    unharmed(&out);
}

#[test]
fn links_in_lists_are_described_from_the_inside() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let out = outside(&agent);
    symlink(out.join("secret"), agent.path("workspace/link")).unwrap();
    let length = out.join("secret").as_os_str().len() as u64;
    let result = client.call(&Request::List { path: "/workspace".into() });
    let [Event::Entries { entries }] = &result.events[..] else { panic!("{result:?}") };
    assert_eq!(entries[0].size, length, "the link itself: inside it leads nowhere");
    match client.call(&Request::Stat { path: "link".into() }).body() {
        Body::File { entry } => assert_eq!(entry.size, length),
        other => panic!("{other:?}"),
    }
}

/// A program inside swaps a directory for a link to the outside, as fast as it can.
#[test]
fn swapping_links_wins_no_race() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let out = outside(&agent);
    let w = agent.path("workspace");
    std::fs::create_dir(w.join("real")).unwrap();
    std::fs::write(w.join("real/secret"), "harmless").unwrap();
    symlink(&out, w.join("link")).unwrap();
    symlink("../../outside", w.join("dots")).unwrap();
    std::fs::create_dir(w.join("spot")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (w, stop) = (&w, &stop);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let other = ["real", "link", "dots"][n % 3];
                renameat_with(CWD, w.join(other), CWD, w.join("spot"), RenameFlags::EXCHANGE).ok();
                renameat_with(CWD, w.join(other), CWD, w.join("spot"), RenameFlags::EXCHANGE).ok();
                n += 1;
            }
        });
        for n in 0..1000 {
            let read = client.read("spot/secret");
            assert!(read.out == b"" || read.out == b"harmless", "read {:?}", read.out());
            client.write(&format!("spot/new{}", n % 7), None, b"x");
            client.call(&Request::Chmod { path: "spot/secret".into(), mode: 0o666 });
            client.call(&Request::Move { from: "spot/new1".into(), to: "spot/new2".into() });
            client.call(&Request::Delete { path: "spot/new3".into(), recursive: true });
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    unharmed(&out);
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(out.join("secret")).unwrap());
    assert_eq!(mode & 0o777, 0o644);
}

/// While a tree is deleted, a program inside swaps its directories for links to the outside and
/// moves them about.
#[test]
fn a_delete_is_not_led_outside() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let out = outside(&agent);
    let w = agent.path("workspace");
    for round in 0..30 {
        let top = w.join(format!("t{round}"));
        let mut at = top.clone();
        for _ in 0..30 {
            at.push("d");
            std::fs::create_dir_all(at.join("leaf")).unwrap();
        }
        let call = client.begin(&Request::Delete { path: format!("t{round}"), recursive: true });
        std::fs::rename(top.join("d/d/d"), w.join(format!("away{round}"))).ok();
        symlink(&out, top.join("d/d/d")).ok();
        symlink(&out, top.join("d/link")).ok();
        let result = client.finish(call);
        assert!(result.end.is_some());
    }
    unharmed(&out);
}
