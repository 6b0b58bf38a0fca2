//! The native provider for an ordinary user: what works, and that what can't be held is not promised.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Longer than a server takes to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody's on any host; the user needs no name.
const USER: u32 = 54_321;

/// A home that belongs to an ordinary user, with the program in reach.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(testkit::stacyvm(), dir.path().join("stacyvm")).unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&home, Some(USER), Some(USER)).unwrap();
        }
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The program as that user, or as whoever runs the tests if that is no root.
    fn stacyvm(&self, args: &[&str]) -> Command {
        let program = self.dir.path().join("stacyvm");
        let mut command = if rustix::process::geteuid().is_root() {
            let id = USER.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(args)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.stacyvm(args).output().unwrap()
    }

    fn run(&self, script: &str) -> String {
        let done = self.output(&["run", "--", "sh", "-c", script]);
        assert!(done.status.success(), "{script}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

#[test]
fn an_ordinary_user_runs_sandboxes() {
    let home = Home::new();
    assert_eq!(
        home.run("id -u; echo kept >/workspace/f; cat /workspace/f; pwd"),
        "0\nkept\n/workspace\n"
    );
    assert_eq!(home.output(&["run", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    // The user's own files and processes are as far away as anybody's.
    let secret = home.path().join("secret");
    fs::write(&secret, "of the user").unwrap();
    let script =
        format!("cat {} 2>/dev/null; ls -d /proc/[0-9]* | wc -l; ls /home", secret.display());
    let seen = home.run(&script);
    let processes: u32 = seen.trim().parse().unwrap_or_else(|_| panic!("{seen}"));
    assert!(processes < 6, "{seen}");
    // Same walls: no capability over the host, no namespaces, no mounts, no way to write to /usr.
    let script = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; \
                  for c in 'mount -t tmpfs t /mnt' 'unshare -U true' 'touch /usr/x' 'touch /dev/x'; \
                  do $c 2>/dev/null && echo \"broke: $c\"; done; hostname | cut -c1-3";
    let seen = home.run(script);
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["CapBnd:", "00000000800405fb", "NoNewPrivs:", "1", "Seccomp:", "2", "sb-"]);
    // The limit that can be held: of what is written.
    let full = "head -c 80m /dev/zero >/workspace/big || echo full";
    let done = home.output(&["run", "--disk", "32", "--", "sh", "-c", full]);
    assert!(String::from_utf8_lossy(&done.stdout).contains("full"), "{done:?}");
}

#[tokio::test]
async fn what_cannot_be_held_is_not_promised() {
    let home = Home::new();
    let done = home.output(&["doctor"]);
    let words = String::from_utf8_lossy(&done.stdout).into_owned();
    for expected in ["rootless", "no limit on memory, CPU, pids", "write to tmpfs"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    let address = home.path().join("address");
    let (config, log) = (home.path().join("stacyvm.yaml"), home.path().join("log"));
    fs::write(&config, "server: { port: 0 }\n").unwrap();
    let args = ["serve", "--config", text(&config), "--addr-file", text(&address)];
    let log = fs::File::create(log).unwrap();
    let mut command = home.stacyvm(&args);
    let mut server = Server(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let bound = testkit::wait_for("the server listens", PATIENCE, async || {
        assert!(server.0.try_wait().unwrap().is_none(), "it ended: {}", home.log());
        fs::read_to_string(&address).map_err(|e| e.to_string())
    })
    .await;
    let address: SocketAddr = bound.trim().parse().unwrap();
    let url = format!("http://{address}");
    let cli = |args: &[&str]| {
        let done = home.output(&[&args[..1], &["--server", &url], &args[1..]].concat());
        assert!(done.status.success(), "{args:?}: {done:?} {}", home.log());
        String::from_utf8(done.stdout).unwrap()
    };
    let spawned: Value = serde_json::from_str(&cli(&["spawn", "--json"])).unwrap();
    let id = spawned["id"].as_str().unwrap().to_owned();
    assert_eq!(cli(&["exec", &id, "echo", "through"]), "through\n");
    cli(&["kill", &id]);
    let asked = testkit::exchange(address, "GET", "/api/v1/providers", &[], b"").await;
    let asked = asked.unwrap().json().unwrap();
    let provider = asked.as_array().unwrap().iter().find(|p| p["name"] == "native").unwrap();
    let held: Vec<&str> =
        provider["capabilities"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(held.contains(&"disk_limit"), "{provider}");
    for word in ["memory_limit", "cpu_limit", "pids_limit", "uid_range"] {
        assert!(!held.contains(&word), "{word} is promised: {provider}");
    }
}

impl Home {
    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
