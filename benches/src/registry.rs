//! A registry of our own on loopback, and an image in it that is large enough to be worth timing.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::ground::succeed;

const TOOLS: [&str; 4] = ["docker-registry", "skopeo", "umoci", "tar"];
const START: Duration = Duration::from_secs(20);
const LAYERS: usize = 4;
const NAME: &str = "bench/large:1";
/// Where the image's files are taken from: programs, libraries, texts, as images hold them.
const SOURCES: [&str; 3] = ["/usr/bin", "/usr/lib", "/usr/share"];

/// The files of one layer.
type Files = Vec<PathBuf>;

pub struct Registry {
    child: Child,
    dir: TempDir,
    host: String,
    /// Of the files in the image.
    pub bytes: u64,
}

impl Registry {
    /// With an image of about so many bytes. An error says why there is none.
    pub async fn start(bytes: u64) -> Result<Self, String> {
        let has = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
        if let Some(tool) = TOOLS.iter().find(|tool| !has(tool)) {
            return Err(format!("there is no {tool}"));
        }
        let dir = tempfile::Builder::new().prefix("stacyvm-registry-").tempdir();
        let dir = dir.map_err(|e| format!("a temporary folder: {e}"))?;
        let (child, host) = serve(dir.path()).await?;
        let mut registry = Self { child, dir, host, bytes: 0 };
        registry.fill(bytes)?;
        Ok(registry)
    }

    /// As `images.registries` takes it.
    pub fn entry(&self) -> String {
        format!("http://{}", self.host)
    }

    pub fn image(&self) -> String {
        format!("{}/{NAME}", self.host)
    }

    /// A folder for what others make of the image, on the disk that the registry is on.
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fill(&mut self, bytes: u64) -> Result<(), String> {
        let (layers, taken) = files(bytes);
        self.bytes = taken;
        let layout = self.place("layout");
        let image = format!("{}:1", layout.display());
        succeed(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
        succeed(Command::new("umoci").args(["new", "--image", &image]))?;
        let (list, tar) = (self.place("list"), self.place("layer.tar"));
        for files in layers {
            let names = files.iter().map(|f| f.to_string_lossy().into_owned());
            let text = names.collect::<Vec<_>>().join("\0");
            fs::write(&list, text).map_err(|e| e.to_string())?;
            let mut pack = Command::new("tar");
            pack.args(["--null", "--no-recursion", "-C", "/", "-T"]).arg(&list);
            succeed(pack.arg("-cf").arg(&tar))?;
            let mut add = Command::new("umoci");
            succeed(add.args(["raw", "add-layer", "--image", &image]).arg(&tar))?;
        }
        let mut push = Command::new("skopeo");
        push.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
        push.arg(format!("oci:{image}")).arg(format!("docker://{}", self.image()));
        succeed(&mut push)?;
        let _ = fs::remove_file(tar);
        fs::remove_dir_all(layout).map_err(|e| e.to_string())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve(dir: &Path) -> Result<(Child, String), String> {
    let end = Instant::now() + START;
    while Instant::now() < end {
        // The port is free until somebody else takes it, so it may take several tries.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let host = free.map_err(|e| e.to_string())?.to_string();
        let config = dir.join("registry.yml");
        let store = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"{host}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n",
            store.display()
        );
        fs::write(&config, text).map_err(|e| e.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("docker-registry: {e}"))?;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            if TcpStream::connect(&host).is_ok() {
                return Ok((child, host));
            }
            sleep(Duration::from_millis(10)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    Err("docker-registry does not start".to_owned())
}

/// Files of this machine, about so many bytes, in layers of about the same size.
fn files(wanted: u64) -> (Vec<Files>, u64) {
    let mut layers: Vec<Files> = vec![Vec::new(); LAYERS];
    let each = wanted / SOURCES.len() as u64;
    let mut total = 0;
    for source in SOURCES {
        let (mut taken, mut next) = (0, vec![PathBuf::from(source)]);
        while let Some(dir) = next.pop().filter(|_| taken < each) {
            let mut entries: Files =
                fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
            entries.sort();
            for path in entries {
                let Ok(about) = path.symlink_metadata() else { continue };
                if about.is_dir() {
                    next.push(path);
                } else if about.is_file() && taken < each {
                    taken += about.len();
                    let at = (total + taken) * LAYERS as u64 / wanted.max(1);
                    let at = usize::try_from(at).unwrap_or(LAYERS).min(LAYERS - 1);
                    if let Ok(inside) = path.strip_prefix("/") {
                        layers[at].push(inside.to_owned());
                    }
                }
            }
        }
        total += taken;
    }
    layers.retain(|files| !files.is_empty());
    (layers, total)
}
