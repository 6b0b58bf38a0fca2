//! The launcher against a spawner that fails.

use std::time::Duration;

use protocol::spawner::Root;
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::host::{AgentSocket, ProcessId};

/// A spawner that isolates nothing needs no privileges and no cgroups.
fn setup(dir: &std::path::Path) -> Setup {
    Setup { sandboxes_dir: dir.to_str().unwrap().into(), unconfined: true, ..Default::default() }
}

async fn make(launcher: &Launcher, dir: &std::path::Path, id: &str) -> Result<Made, Fault> {
    use std::os::fd::AsFd;
    let own = dir.join(id);
    std::fs::create_dir_all(own.join("root")).unwrap();
    let socket = AgentSocket::make(&own).unwrap().listener;
    let spec = SpawnSpec {
        id: id.into(),
        hostname: id.into(),
        root: Root::Directory { path: own.join("root").to_str().unwrap().into() },
        workdir: "/workspace".into(),
        ..Default::default()
    };
    launcher.spawn(spec, &[socket.as_fd()]).await
}

fn end(made: &Made) {
    ProcessId { pid: made.pid, start_time: made.start_time }.kill().unwrap();
}

#[tokio::test]
async fn a_spawner_that_dies_is_started_again_and_sandboxes_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = Launcher::start(setup(dir.path()), Box::new(Vec::new)).await.unwrap();
    let old = make(&launcher, dir.path(), "sb-old").await.unwrap();
    let first = launcher.last_pid();
    let pid = Pid::from_raw(i32::try_from(first).unwrap()).filter(|p| p.as_raw_pid() > 1);
    kill_process(pid.unwrap(), Signal::KILL).unwrap();
    let wait = async {
        while launcher.last_pid() == first || !launcher.is_up() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it is not started again");
    let alive = ProcessId { pid: old.pid, start_time: old.start_time }.is_alive();
    assert!(alive, "a sandbox ended with its spawner");
    let new = make(&launcher, dir.path(), "sb-new").await.unwrap();
    launcher.adopt("sb-old", old.slot).await.unwrap();
    for (id, made) in [("sb-old", &old), ("sb-new", &new)] {
        end(made);
        launcher.release(id, made.slot).await.unwrap();
    }
    launcher.stop().await;
    assert!(!launcher.is_up());
}

#[tokio::test]
async fn a_setup_that_fails_is_told_at_once() {
    let nowhere = Setup { sandboxes_dir: "/proc/nowhere".into(), ..Default::default() };
    let nowhere = Setup { layers_dir: "/proc/nowhere".into(), ..nowhere };
    let fault = Launcher::start(nowhere, Box::new(Vec::new)).await.err().expect("it can't work");
    assert!(!fault.message.contains("/proc"), "{}", fault.message);
}
