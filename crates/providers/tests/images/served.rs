//! Registries to pull from: Debian's own, and one that does what it is told, however wrong.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::layout::sha256;
use crate::support::wait_for;

/// `bob:open sesame`.
const HTPASSWD: &str = "bob:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

/// A real registry on a free port of loopback.
pub struct RealRegistry {
    child: Child,
    pub host: String,
}

pub fn tools() -> bool {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    has("skopeo") && has("docker-registry")
}

impl RealRegistry {
    pub fn start(dir: &Path, with_key: bool) -> Self {
        // The port is free until somebody else takes it, so it may take several tries.
        for _ in 0..8 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let (config, users) = (dir.join("registry.yml"), dir.join("htpasswd"));
            fs::write(&users, HTPASSWD).unwrap();
            let auth = match with_key {
                true => format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", users.display()),
                false => String::new(),
            };
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: \"{host}\"}}\n{auth}",
                dir.join("registry").display()
            );
            fs::write(&config, text).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut died = false;
            wait_for("the registry", || {
                died = child.try_wait().unwrap().is_some();
                died || TcpStream::connect(&host).is_ok()
            });
            if !died {
                return Self { child, host };
            }
        }
        panic!("no registry could be started");
    }

    /// Pushes an image of an OCI layout.
    pub fn push(&self, layout: &Path, tag: &str, to: &str, key: Option<&str>) {
        let from = format!("oci:{}:{tag}", layout.display());
        let to = format!("docker://{}/{to}", self.host);
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
        command.args(["--format", "oci"]);
        key.map(|key| command.args(["--dest-creds", key]));
        let done = command.args([&from, &to]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub path: String,
    /// The first byte wanted.
    pub from: Option<usize>,
    pub authorization: Option<String>,
    pub body: String,
    /// How often this path was asked before.
    pub before: usize,
}

/// What is answered.
pub enum Answer {
    /// What the layout has.
    Honest,
    /// The same from the start, whatever part was wanted.
    Whole,
    /// So many bytes of it, then the line is cut.
    Cut(usize),
    /// A byte now and then.
    Drip,
    /// Another body.
    Bytes(Vec<u8>),
    /// A status and headers.
    Status(u16, String),
    /// Nothing at all.
    Silence,
}

type Behaviour = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A registry over a layout that answers as its behaviour says.
pub struct Crooked {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Crooked {
    pub fn start(
        layout: PathBuf,
        behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (seen, behaviour) = (Arc::clone(&asked), Arc::new(behaviour) as Arc<Behaviour>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (layout, seen) = (layout.clone(), Arc::clone(&seen));
                let behaviour = Arc::clone(&behaviour);
                std::thread::spawn(move || drop(serve(stream, &layout, &seen, &*behaviour)));
            }
        });
        Self { addr, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn blobs(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|a| a.path.contains("/blobs/")).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    layout: &Path,
    seen: &Mutex<Vec<Asked>>,
    behaviour: &Behaviour,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut asked = Asked { path, ..Asked::default() };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let from = value.trim_start_matches("bytes=").trim_end_matches('-');
                asked.from = from.parse().ok();
            }
            "authorization" => asked.authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut body)?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    {
        let mut seen = seen.lock().unwrap();
        asked.before = seen.iter().filter(|a| a.path == asked.path).count();
        seen.push(asked.clone());
    }
    let honest = content(layout, &asked.path);
    let (mut bytes, mut from) = (honest.clone().unwrap_or_default(), asked.from.unwrap_or(0));
    let mut most = usize::MAX;
    let mut drip = false;
    match behaviour(&asked) {
        Answer::Honest => {}
        Answer::Whole => from = 0,
        Answer::Cut(n) => most = n,
        Answer::Drip => drip = true,
        Answer::Bytes(other) => (bytes, from) = (other, 0),
        Answer::Status(status, headers) => {
            return write!(
                stream,
                "HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        Answer::Silence => {
            std::io::Read::read(&mut stream, &mut [0])?;
            return Ok(());
        }
    }
    let part = &bytes[from.min(bytes.len())..];
    match from {
        0 => write!(stream, "HTTP/1.1 200 OK\r\n")?,
        n => {
            let last = bytes.len().saturating_sub(1);
            write!(
                stream,
                "HTTP/1.1 206 X\r\ncontent-range: bytes {n}-{last}/{}\r\n",
                bytes.len()
            )?;
        }
    }
    write!(stream, "content-length: {}\r\nconnection: close\r\n\r\n", part.len())?;
    if drip {
        for byte in part {
            stream.write_all(&[*byte])?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        return Ok(());
    }
    stream.write_all(&part[..part.len().min(most)])
}

/// What the layout has for a path of a registry: the newest manifest for any tag.
fn content(layout: &Path, path: &str) -> Option<Vec<u8>> {
    let last = path.rsplit('/').next()?;
    let blob = |hex: &str| fs::read(layout.join("blobs/sha256").join(hex)).ok();
    if let Some(hex) = last.strip_prefix("sha256:") {
        return blob(hex);
    }
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).ok()?).ok()?;
    let bytes = blob(index["manifests"][0]["digest"].as_str()?.strip_prefix("sha256:")?)?;
    assert!(!sha256(&bytes).is_empty());
    Some(bytes)
}
