//! A Docker daemon of our own, beside any that the machine has: started here, ended here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::ground::{Busybox, succeed};

const IMAGE: &str = "busybox";
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(15);

pub struct Docker {
    daemon: Child,
    dir: TempDir,
}

impl Docker {
    /// With the busybox image. An error says why there is none.
    pub async fn start(busybox: &Busybox) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("stacyvm-docker-").tempdir();
        let dir = dir.map_err(|e| format!("a temporary folder: {e}"))?;
        let at = |name: &str| dir.path().join(name);
        let log = File::create(at("log")).map_err(|e| e.to_string())?;
        // A network namespace of its own: it touches neither the host's bridge nor its rules.
        let daemon = Command::new("unshare")
            .args(["-n", "dockerd", "--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .arg("--host")
            .arg(format!("unix://{}", at("docker.sock").display()))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--cgroup-parent", &cgroup_parent()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("unshare -n dockerd: {e}"))?;
        let mut docker = Self { daemon, dir };
        docker.wait_until_up().await?;
        docker.import(busybox)?;
        Ok(docker)
    }

    async fn wait_until_up(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            if succeed(&mut self.command(&["version"])).is_ok() {
                return Ok(());
            }
            let ended = self.daemon.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("dockerd does not start: {}", last.join(" | ")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn import(&self, busybox: &Busybox) -> Result<(), String> {
        let tar = self.dir.path().join("busybox.tar");
        succeed(Command::new("tar").arg("-C").arg(busybox.root()).arg("-cf").arg(&tar).arg("."))?;
        succeed(self.command(&["import"]).arg(&tar).arg(IMAGE))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}/docker.sock", self.dir.path().display()));
        command.args(words);
        command
    }

    /// `docker run --rm … CMD`
    pub fn run(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["run", "--rm", "--network", "none", IMAGE]);
        command.args(words);
        command
    }

    /// Starts a container for [`Docker::exec`].
    pub fn keep_one(&self) -> Result<(), String> {
        let words = ["run", "-d", "--name", "kept", "--network", "none", IMAGE, "sleep", "3600"];
        succeed(&mut self.command(&words))
    }

    pub fn exec(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["exec", "kept"]);
        command.args(words);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = succeed(&mut self.command(&["rm", "-f", "kept"]));
        // `unshare` executes the daemon: the child is the daemon itself.
        signal(self.daemon.id(), Signal::TERM);
        // Blocking: nothing else goes on while this is dropped.
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < STOP && matches!(self.daemon.try_wait(), Ok(None)) {
            std::thread::sleep(step);
            waited += step;
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Shims, and containerd, if they outlived it.
        processes_of(self.dir.path()).into_iter().for_each(|pid| signal(pid, Signal::KILL));
        unmount_below(self.dir.path());
        remove_cgroups();
    }
}

/// A name that nobody else has.
fn cgroup_parent() -> String {
    format!("/stacyvm-bench-{}", std::process::id())
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
    // It may be gone already.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

/// Those that bear the folder in their words.
fn processes_of(dir: &Path) -> Vec<u32> {
    let needle = dir.to_string_lossy().into_owned();
    let own = std::process::id();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        (pid != own && String::from_utf8_lossy(&words).contains(&needle)).then_some(pid)
    })
    .collect()
}

/// Deepest first.
fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|p| p.starts_with(dir)).collect();
    below.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in below {
        // The folder's removal fails visibly if this does.
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
}

fn remove_cgroups() {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for hierarchy in hierarchies {
        let _ = fs::remove_dir(hierarchy.path().join(&cgroup_parent()[1..]));
    }
    let _ = fs::remove_dir(format!("/sys/fs/cgroup{}", cgroup_parent()));
}
