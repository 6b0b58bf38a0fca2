//! Processes of the host and of a neighbour.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use testkit::wait_for;

use super::control::{self, Control, Without};
use super::ground::{Ground, IMAGE, Target};

const SOON: Duration = Duration::from_secs(10);

/// Processes of this host whose words hold the mark, by what the kernel says of them.
pub fn on_the_host(mark: &str) -> Vec<(i32, String)> {
    let pids = fs::read_dir("/proc").expect("there is a /proc").flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.windows(mark.len()).any(|w| w == mark.as_bytes())
    };
    let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pids.filter(marked).map(|pid| (pid, status(pid))).collect()
}

/// A word that no other process has: a number of seconds for `sleep`.
pub fn mark(n: u32) -> String {
    format!("8{n}7{}", std::process::id())
}

/// Ended with the test.
struct Sleeper(Child);

impl Sleeper {
    /// As the user that controls run as.
    fn new(seconds: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sleep", seconds]);
        Self(command.spawn().expect("setpriv is there"))
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn sleep_inside(target: &Target<'_>, mark: &str) -> (i32, String) {
    target.shell(&format!("sleep {mark} >/dev/null 2>&1 &")).await;
    wait_for("the sleeper to be there", SOON, async || {
        on_the_host(mark).into_iter().find(|(_, s)| s.contains("Name:\tsleep")).ok_or("nothing")
    })
    .await
}

fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_default().split_whitespace().collect()
}

#[tokio::test]
async fn others_are_out_of_sight_and_reach() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let (target, neighbour) = (ground.spawn(IMAGE).await, ground.spawn(IMAGE).await);
    let (ours, theirs) = (mark(1), mark(2));
    let mut host = Sleeper::new(&ours);
    wait_for("the host's sleeper", SOON, async || match on_the_host(&ours).is_empty() {
        true => Err("nothing"),
        false => Ok(()),
    })
    .await;
    let (pid, _) = sleep_inside(&neighbour, &theirs).await;
    let attacks: Vec<String> = [
        format!("see_process={ours}"),
        format!("see_process={theirs}"),
        format!("signal_process={}", host.0.id()),
        format!("signal_process={pid}"),
        format!("signal_process={}", ground.server().pid()),
        format!("signal_by_descriptor={}", host.0.id()),
    ]
    .into();
    let attacks: Vec<&str> = attacks.iter().map(String::as_str).collect();
    for seen in target.attack(&attacks).await {
        assert_eq!(seen.error(), Some("ESRCH"), "{seen:?}");
    }
    // A neighbour of another user can be seen without the wall, but not signalled.
    let through = [attacks[0], attacks[1], attacks[2], attacks[5]];
    for seen in Control::User.run_without(Without::Processes, &through).unwrap() {
        assert!(seen.broke(), "{seen:?}");
    }

    // With all of one's own gone, everybody else is still there.
    target.is_elsewhere().await;
    let host_namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let all = format!("kill_all={}", host_namespace.display());
    let done = target.exec(&[target.program(), &all], "10s").await.unwrap();
    assert_eq!(done.exit_code, 137, "{done:?}");
    assert!(host.lives());
    assert_eq!(on_the_host(&theirs).len(), 1);
    target.is_well().await;
    neighbour.is_well().await;
    ground.end().await;
}

/// Root inside is nobody outside, and another nobody in each sandbox.
#[tokio::test]
async fn root_inside_is_nobody_outside() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let mut users = BTreeSet::new();
    for n in 3..6 {
        let target = ground.spawn(IMAGE).await;
        assert_eq!(target.shell("id -u").await, "0\n");
        let (_, status) = sleep_inside(&target, &mark(n)).await;
        for ids in [field(&status, "Uid"), field(&status, "Gid")] {
            let own: BTreeSet<&str> = ids.iter().copied().collect();
            assert_eq!((ids.len(), own.len()), (4, 1), "{status}");
            assert!(ids[0].parse::<u32>().unwrap() >= 65536, "{status}");
        }
        assert_eq!(field(&status, "Groups"), [""; 0], "{status}");
        users.insert(field(&status, "Uid")[0].to_owned());
    }
    assert_eq!(users.len(), 3, "{users:?}");
    ground.end().await;
}
