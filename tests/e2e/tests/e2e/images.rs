//! Images from a real registry, with a real distribution: pulled by a spawn, looked at, honoured,
//! compared with what another unpacker makes of them, and removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::api::{PruneImagesRequest, SpawnRequest};
use serde_json::json;
use testkit::{System, wait_for};

use super::crashes::world::{SOON, World, in_time};

/// Building a distribution takes its time; it is done once and kept.
const TOOLS: [&str; 5] = ["skopeo", "umoci", "docker-registry", "mmdebstrap", "tar"];

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|e| panic!("{program} (see scripts/test): {e}"));
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A Debian with Python as a tar, kept with the other things that tests build.
fn debian() -> PathBuf {
    let program = std::env::current_exe().expect("this is a program");
    let kept = program.ancestors().nth(2).expect("it lies deep enough").join("test-images");
    fs::create_dir_all(&kept).expect("the build folder is ours");
    let tar = kept.join("debian-python.tar");
    if !tar.exists() {
        let part = kept.join(format!("debian-python.{}.tar", std::process::id()));
        run(
            "mmdebstrap",
            &["--quiet", "--variant=minbase", "--include=python3", "bookworm", text(&part)],
        );
        fs::rename(&part, &tar).expect("the build folder is ours");
    }
    tar
}

/// What stands on top of the distribution: a user, a program, and something deleted.
fn top(dir: &Path) -> PathBuf {
    let tree = dir.join("top");
    for part in ["usr/share/doc", "srv/app", "etc"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    fs::write(tree.join("usr/share/.wh.doc"), "").unwrap();
    fs::remove_dir(tree.join("usr/share/doc")).unwrap();
    fs::write(tree.join("srv/app/main.py"), "print('from', 'the', 'image')\n").unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/bash\napp:x:1234:1235::/srv/app:/bin/sh\n";
    fs::write(tree.join("etc/passwd"), passwd).unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\napp:x:1235:\nextra:x:7:app\n").unwrap();
    let tar = dir.join("top.tar");
    let owned = ["--owner=0", "--group=0", "--numeric-owner"];
    let args =
        [&["-C", text(&tree)][..], &owned, &["-cf", text(&tar), "usr", "srv", "etc"]].concat();
    run("tar", &args);
    tar
}

struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        for _ in 0..8 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let config = dir.join("registry.yml");
            let store = dir.join("registry");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"{host}\"}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\n",
                store.display()
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            // Until it answers, or has found its port taken.
            for _ in 0..1000 {
                if TcpStream::connect(&host).is_ok() {
                    return Self { child, host };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("no registry could be started");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kind, mode, owner, time, target and content of all that is no device, below these folders.
const LIST: &str = "for d in usr etc srv root home var opt; do [ -d $d ] && echo $d; done | \
    while read d; do find $d ! -type b ! -type c ! -type p -printf '%p\\t%y %m %U %G %l %Ts\\n'; \
    find $d -type f -exec sha256sum {} + | sed 's/^\\([0-9a-f]*\\)  \\(.*\\)$/\\2 =\\t\\1/'; done";

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('\t')).collect()
}

#[tokio::test]
async fn a_distribution_is_pulled_honoured_shared_and_removed() {
    let lacking = TOOLS.iter().find(|t| Command::new(t).arg("--version").output().is_err());
    if let Some(tool) = lacking {
        println!("skipped: there is no {tool} on this machine (scripts/test installs it)");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can unpack a distribution with its owners");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let layout = dir.join("layout");
    let image = format!("{}:1", layout.display());
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    for tar in [debian(), top(dir)] {
        run("umoci", &["raw", "add-layer", "--image", &image, text(&tar)]);
    }
    let settings = ["--config.user=app", "--config.workingdir=/srv/app", "--config.env=A=b c"];
    let never = ["--config.entrypoint=/bin/false"];
    run("umoci", &[&["config", "--image", &image][..], &settings, &never].concat());
    let registry = Registry::start(dir);
    let name = format!("{}/test/debian:1", registry.host);
    let push = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    let ends = [format!("oci:{image}"), format!("docker://{name}")];
    run("skopeo", &[&push[..], &[&ends[0], &ends[1]]].concat());

    let system = System::new(json!({
        "providers": { "native": { "pool": 4 } },
        "defaults": { "memory_mb": 256, "disk_size_mb": 256, "ttl": "10m" },
        "images": { "registries": [format!("http://{}", registry.host)] },
    }));
    let mut world = World { system, provider: "native" };
    let server = world.start().await;
    let wanted = SpawnRequest { image: Some(name.clone()), ..SpawnRequest::default() };
    let spawned =
        tokio::time::timeout(Duration::from_secs(120), server.client.spawn(&wanted)).await;
    let id = spawned.expect("pulled in time").expect("pulled by the spawn").id;

    // ENV, WORKDIR and USER; the entrypoint does not run.
    let said =
        server.said(&id, "id -u; id -g; id -G; pwd; echo $A; echo $HOME; python3 main.py").await;
    assert_eq!(said, "1234\n1235\n1235 7\n/srv/app\nb c\n/srv/app\nfrom the image");
    assert_eq!(
        server.said(&id, "ls /usr/share/doc 2>&1 | wc -l; touch /workspace/x && echo ok").await,
        "1\nok"
    );
    let write = server.client.write_file(&id, "/workspace/new/file", "x", None);
    in_time("a write", write).await.unwrap();
    let owners =
        server.said(&id, "stat -c '%u:%g' /workspace /workspace/new /workspace/new/file").await;
    assert_eq!(owners, "1234:1235\n1234:1235\n1234:1235");

    // File by file what another unpacker makes of it.
    let bundle = dir.join("bundle");
    run("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let theirs = Command::new("sh").args(["-c", LIST]).current_dir(bundle.join("rootfs")).output();
    let theirs = String::from_utf8_lossy(&theirs.unwrap().stdout).into_owned();
    let fresh = server.spawn_as(wanted.clone()).await.id;
    let as_root = client::api::ExecRequest {
        command: Some(format!("cd / && {LIST}")),
        user: Some("root".to_owned()),
        ..client::api::ExecRequest::default()
    };
    let ours = server.client.exec(&fresh, &as_root).await.unwrap();
    assert!(!ours.stdout.is_empty(), "{}", ours.stderr);
    let (ours, theirs) = (lines(&ours.stdout), lines(&theirs));
    let differ: Vec<_> =
        theirs.iter().filter(|(path, line)| ours.get(*path) != Some(line)).collect();
    assert!(theirs.len() > 3000, "{} lines", theirs.len());
    assert!(differ.is_empty(), "{} differ: {:?}", differ.len(), &differ[..differ.len().min(9)]);

    // The same over REST.
    let images = server.client.images().await.unwrap();
    assert_eq!((images.len(), images[0].layers), (1, 2));
    assert_eq!(images[0].user.as_deref(), Some("app"));
    let mut pull = server.client.pull_image(&name).await.unwrap();
    let mut last = None;
    while let Some(line) = pull.next().await.unwrap() {
        last = Some(line);
    }
    let last = last.expect("a pull says how it ends");
    assert_eq!(
        (last.status.as_str(), last.image.map(|i| i.digest)),
        ("done", Some(images[0].digest.clone()))
    );
    assert_eq!(server.client.tag_image(&name, "mine:1").await.unwrap().names.len(), 2);
    assert_eq!(server.client.image("mine:1").await.unwrap().digest, images[0].digest);
    server.client.delete_image("mine:1").await.unwrap();
    // In use, it stays.
    let all = PruneImagesRequest { all: Some(true), ..PruneImagesRequest::default() };
    assert!(server.client.prune_images(&all).await.unwrap().removed.is_empty());
    assert_eq!(server.client.delete_image(&name).await.unwrap_err().code(), Some("CONFLICT"));
    let mut away = server.client.pull_image("169.254.169.254/latest:1").await.unwrap();
    let mut last = None;
    while let Some(line) = away.next().await.unwrap() {
        last = line.code;
    }
    assert_eq!(last.as_deref(), Some("FORBIDDEN"));
    server.destroy(&id).await;
    server.destroy(&fresh).await;
    wait_for("the image to be free", SOON, async || {
        let pruned = server.client.prune_images(&all).await.map_err(|e| e.to_string())?;
        if pruned.freed_bytes > 50 << 20 { Ok(()) } else { Err(format!("{pruned:?}")) }
    })
    .await;
    assert!(server.client.images().await.unwrap().is_empty());
    server.stop().await;
    world.assert_nothing_left().await;
}
