//! A whole StacyVM as a user runs it: `stacyvm serve` with a config file and a folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Leftover, Reply, binary, http, leftovers, slate, wait_for};

const START: Duration = Duration::from_secs(30);
/// More than the ten seconds that a graceful stop may take.
const STOP: Duration = Duration::from_secs(20);

/// How folders of systems under test are named.
pub(crate) const NAME: &str = "stacyvm-test-";

/// A data folder and a configuration; what is in it outlives each server started on it.
pub struct System {
    dir: TempDir,
    env: Vec<(String, String)>,
    starts: u32,
}

impl System {
    /// `config` is the content of the config file; `data_dir` and the port are filled in.
    pub fn new(mut config: Value) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(NAME)
            .tempdir()
            .expect("a temporary folder can be made");
        let data = dir.path().join("data");
        config["data_dir"] = json!(data);
        if config.get("server").is_none() {
            config["server"] = json!({"host": "127.0.0.1"});
        }
        config["server"]["port"] = json!(0);
        // JSON is YAML.
        fs::write(dir.path().join("config.yaml"), config.to_string()).expect("the folder is ours");
        Self { dir, env: Vec::new(), starts: 0 }
    }

    /// Sets a variable for the servers started from now on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Servers started from now on do not get it.
    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// Any other command of the binary, on this configuration. Runs in the system's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary::stacyvm());
        command.arg("--config").arg(self.config_file()).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    /// If it does not; the message has its log.
    pub async fn start(&mut self) -> Running {
        let mut running = self.launch();
        let addr_file = running.addr_file.clone();
        let addr = wait_for("the server to listen", START, async || {
            if let Ok(Some(status)) = running.child.try_wait() {
                panic!("the server ended with {status}:\n{}", running.log());
            }
            let text = fs::read_to_string(&addr_file).map_err(|_| running.log())?;
            let text = text.trim().trim_start_matches("http://");
            text.parse::<SocketAddr>().map_err(|_| running.log())
        });
        running.addr = Some(addr.await);
        running
    }

    /// Starts a server without waiting, for those that are not meant to come up.
    pub fn launch(&mut self) -> Running {
        self.starts += 1;
        let file = |what: &str| self.dir.path().join(format!("{what}-{}", self.starts));
        let (log, addr_file) = (file("log"), file("addr"));
        let out = File::create(&log).expect("the folder is ours");
        let err = out.try_clone().expect("a file can be shared");
        let child = self
            .command(&["serve", "--addr-file"])
            .arg(&addr_file)
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary can be run");
        Running { child, addr: None, addr_file, log }
    }

    /// What of this system is still on the host. Empty after all sandboxes are destroyed and the
    /// server has stopped.
    pub fn leftovers(&self) -> Vec<Leftover> {
        leftovers(&self.data_dir())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        slate::sweep(&self.data_dir());
    }
}

/// A server that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    addr: Option<SocketAddr>,
    addr_file: PathBuf,
    log: PathBuf,
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("only a started server has an address")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// A client of it, without a key.
    pub fn client(&self) -> client::Client {
        let options = client::Options::new(self.url());
        client::Client::new(options).expect("a local address can be used")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// One request with a JSON body (`Null`: none).
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Reply, String> {
        let headers: Vec<_> =
            headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::exchange(self.addr(), method, path, &headers, body.as_bytes()).await
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("a child has a process id"), signal);
    }

    /// Asks it to stop, and waits for that.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit(STOP).await
    }

    /// Ends it as a crash would.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        let status = self.exit(STOP).await;
        assert_eq!(status.signal(), Some(9), "it ended before it was killed: {}", self.log());
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        wait_for("the server to end", deadline, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("it runs on:\n{}", self.log())),
            Err(e) => Err(e.to_string()),
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
