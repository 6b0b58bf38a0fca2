//! `stacyvm run` is killed: what it made ends with it, and the next run clears the rest away.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testkit::{Process, System};

use super::world::{gone, names, running};

/// Where the control groups of a process are, in every hierarchy.
fn groups_of(process: &Process) -> BTreeSet<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|l| l.contains(" - cgroup"));
    let points: Vec<PathBuf> =
        points.filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from).collect();
    let paths = groups.lines().filter_map(|l| l.splitn(3, ':').nth(2));
    // Only ours: others' stay, whatever we do.
    let ours =
        paths.filter(|p| p.contains("stacyvm")).map(|p| p.trim_start_matches('/').to_owned());
    ours.flat_map(|p| points.iter().map(move |m| m.join(&p))).filter(|d| d.exists()).collect()
}

#[tokio::test]
async fn a_run_leaves_nothing_whatever_ends_it() {
    let system = System::new(json!({}));
    for (signal, nap) in [(Signal::KILL, "602.1"), (Signal::INT, "602.2"), (Signal::KILL, "602.3")]
    {
        let script = format!("(setsid sleep {nap} &); echo up; sleep 600");
        let mut command = system.command(&["run", "--", "sh", "-c", &script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        let nap = running(&["sleep", nap]).await;
        let helpers = Process::children_of(child.id());
        let groups = groups_of(&nap);
        assert!(!helpers.is_empty());
        if rustix::process::geteuid().is_root() {
            assert!(!groups.is_empty());
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), (signal == Signal::INT).then_some(130));
        gone("the command", &nap).await;
        for helper in &helpers {
            gone("a helper", helper).await;
        }
        // A killed one cannot tidy up: the next does.
        let next = system.command(&["run", "--", "true"]).output().unwrap();
        assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
        let left: Vec<_> = groups.iter().filter(|g| g.exists()).collect();
        assert!(left.is_empty(), "control groups are left: {left:?}");
        assert!(names(&system.data_dir().join("run")).is_empty());
        assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
    }
}

#[tokio::test]
async fn a_run_beside_a_server_shares_its_store_and_nothing_else() {
    let mut world = super::world::World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    let run = |args: &[&str]| {
        let done = world.system.command(&[&["run", "--"], args].concat()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    assert_eq!(run(&["echo", "hi"]), "hi\n");
    super::slate::assert_clean(&world, &server, &[&id]).await;
    server.destroy(&id).await;
    server.stop().await;
    assert_eq!(run(&["echo", "hi"]), "hi\n");
    world.assert_nothing_left().await;
}
