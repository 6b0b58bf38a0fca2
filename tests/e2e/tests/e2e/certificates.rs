//! Pulls over https from a real registry whose certificate a CA of the test's own has issued.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use testkit::{System, busybox_rootfs, wait_for};

use super::crashes::world::SOON;

const TOOLS: [&str; 4] = ["openssl", "skopeo", "umoci", "docker-registry"];
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn run(program: &str, dir: &Path, args: &[&str]) {
    let done = Command::new(program).args(args).current_dir(dir).output();
    let done = done.unwrap_or_else(|e| panic!("{program} (see scripts/test): {e}"));
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A CA, and what it says of a name: `ca.pem`, `NAME.pem` and `NAME.key` in the folder.
fn certificates(dir: &Path) {
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=a test's own", "-keyout", "ca.key"];
    run("openssl", dir, &[&ca[..], &KEY, &["-out", "ca.pem"]].concat());
    for (name, of) in [("right", "IP:127.0.0.1"), ("other", "DNS:elsewhere.example")] {
        let [key, csr, pem] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
        let san = format!("subjectAltName={of}");
        let ask = ["req", "-subj", "/CN=registry", "-addext", &san, "-keyout", &key, "-out", &csr];
        run("openssl", dir, &[&ask[..], &KEY].concat());
        let sign = ["x509", "-req", "-in", &csr, "-CA", "ca.pem", "-CAkey", "ca.key"];
        let more = ["-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", &pem];
        run("openssl", dir, &[&sign[..], &more].concat());
    }
}

/// Debian's registry on loopback; with a certificate it speaks https.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    async fn start(dir: &Path, certificate: Option<&str>) -> Self {
        // The port is free until somebody else takes it, so it may take several tries.
        for _ in 0..8 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let file = |end: &str| dir.join(format!("{}.{end}", certificate.unwrap_or_default()));
            let tls = json!({ "certificate": file("pem"), "key": file("key") });
            let mut http = json!({ "addr": host });
            if certificate.is_some() {
                http["tls"] = tls;
            }
            let store = json!({ "filesystem": { "rootdirectory": dir.join("registry") } });
            let config = json!({ "version": 0.1, "log": { "level": "error" }, "http": http,
                                 "storage": store });
            // JSON is YAML.
            let path = dir.join("registry.yml");
            fs::write(&path, config.to_string()).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let up = wait_for("the registry", SOON, async || {
                match (TcpStream::connect(&host), child.try_wait().unwrap()) {
                    (_, Some(_)) => Ok(false),
                    (Ok(_), None) => Ok(true),
                    (Err(e), None) => Err(e.to_string()),
                }
            });
            if up.await {
                return Self { child, host };
            }
        }
        panic!("no registry could be started");
    }

    fn image(&self) -> String {
        format!("{}/some/image:1", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn layout(dir: &Path) -> PathBuf {
    let (tree, layout) = (dir.join("tree"), dir.join("layout"));
    fs::create_dir(&tree).unwrap();
    busybox_rootfs(&tree).unwrap();
    run("tar", dir, &["-C", "tree", "-cf", "tree.tar", "."]);
    run("umoci", dir, &["init", "--layout", "layout"]);
    run("umoci", dir, &["new", "--image", "layout:1"]);
    run("umoci", dir, &["raw", "add-layer", "--image", "layout:1", "tree.tar"]);
    layout
}

/// A pull by the command line, on a configuration that lists the registry as `entry`.
fn pull(entry: &Value, image: &str, trusted: Option<&Path>) -> Output {
    let mut system = System::new(json!({ "images": { "registries": [entry] } }));
    if let Some(file) = trusted {
        system.env("SSL_CERT_FILE", file.to_str().unwrap());
    }
    let output = system.command(&["image", "pull", image]).output().unwrap();
    let ls = system.command(&["image", "ls", "--json"]).output().unwrap();
    let images: Value = serde_json::from_slice(&ls.stdout).unwrap();
    let count = images.as_array().unwrap().len();
    assert_eq!(count, usize::from(output.status.success()), "{images}");
    output
}

fn refused(output: &Output, words: &str) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(words), "{error}");
}

#[tokio::test]
async fn a_registry_is_believed_if_its_certificate_is() {
    if let Some(tool) = TOOLS.iter().find(|t| Command::new(t).arg("version").output().is_err()) {
        println!("skipped: there is no {tool} on this machine (scripts/test installs it)");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    certificates(dir);
    let layout = layout(dir);
    let registry = Registry::start(dir, Some("right")).await;
    let image = registry.image();
    let push = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    let ends = [format!("oci:{}:1", layout.display()), format!("docker://{image}")];
    run("skopeo", dir, &[&push[..], &[&ends[0], &ends[1]]].concat());

    // By the machine's own list, which knows no such CA.
    let plain = json!(registry.host);
    refused(&pull(&plain, &image, None), "its certificate is not trusted by this machine");
    // By a list of the user's choice, and by what the configuration says of this registry.
    let ca = dir.join("ca.pem");
    for (entry, trusted) in
        [(plain, Some(ca.as_path())), (json!({ "host": registry.host, "ca_file": ca }), None)]
    {
        let output = pull(&entry, &image, trusted);
        assert!(output.status.success(), "{entry}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let unread = json!({ "host": registry.host, "ca_file": dir.join("none.pem") });
    refused(&pull(&unread, &image, None), "ca_file");

    // A certificate that is good, of somebody else.
    let other = Registry::start(dir, Some("other")).await;
    let entry = json!({ "host": other.host, "ca_file": ca });
    refused(&pull(&entry, &other.image(), None), "its certificate is for another name");
    // No https at all.
    let open = Registry::start(dir, None).await;
    let entry = json!({ "host": open.host, "ca_file": ca });
    refused(&pull(&entry, &open.image(), None), "does not speak https");
}
