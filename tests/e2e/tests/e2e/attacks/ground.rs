//! A server with native sandboxes that hold the attacker, shared by the attacks of one theme.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use client::{Client, Error, Options, api};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Running, System, wait_for};

use super::program::{Verdict, attacker, verdicts};

pub const IMAGE: &str = "attacker:latest";
/// In the image.
pub const ATTACKER: &str = "/bin/attacker";
/// In `host`, where it is written to.
const CARRIED: &str = "/workspace/attacker";

pub struct Ground {
    system: System,
    server: Option<Running>,
    client: Client,
}

impl Ground {
    pub async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// `native`: more of `providers.native`.
    pub async fn with(native: Value) -> Self {
        let mut system = System::new(json!({
            "providers": { "default": "native", "native": native },
            "defaults": { "memory_mb": 256, "vcpus": 2, "disk_size_mb": 64 },
        }));
        // What no sandbox may see.
        system.env("STACYVM_TEST_SECRET", SECRET);
        import(&system, IMAGE, &|_| {});
        let server = system.start().await;
        let client = Client::new(Options::new(server.url())).expect("the address is one");
        Self { system, server: Some(server), client }
    }

    pub fn system(&self) -> &System {
        &self.system
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn server(&self) -> &Running {
        self.server.as_ref().expect("it runs until the end")
    }

    pub async fn spawn(&self, image: &str) -> Target<'_> {
        self.spawn_as(api::SpawnRequest { image: Some(image.into()), ..Default::default() }).await
    }

    pub async fn spawn_as(&self, request: api::SpawnRequest) -> Target<'_> {
        let image = request.image.clone().unwrap_or_else(|| IMAGE.into());
        let request = api::SpawnRequest { image: Some(image.clone()), ..request };
        let made =
            self.client.spawn(&request).await.unwrap_or_else(|e| {
                panic!("no sandbox of {image}: {e:?}\n{}", self.server().log())
            });
        let target = self.target(made.id);
        if image != "host" {
            return target;
        }
        let target = Target { program: CARRIED, ..target };
        target.carry().await;
        target
    }

    /// A sandbox whose image has the attacker.
    pub fn target(&self, id: String) -> Target<'_> {
        Target { ground: self, id, program: ATTACKER }
    }

    /// Ends everything, and looks at what is left and at the log.
    pub async fn end(mut self) {
        for sandbox in self.client.list().await.expect("the server lives") {
            self.client.destroy(&sandbox.id, None).await.expect("it can be destroyed");
        }
        let server = self.server.take().expect("it runs until now");
        let log = server.log();
        assert!(server.stop().await.success(), "the server ended badly:\n{log}");
        wait_for("nothing to be left over", Duration::from_secs(10), async || {
            match self.system.leftovers() {
                left if left.is_empty() => Ok(()),
                left => Err(left.iter().map(|l| format!("{l}\n")).collect::<String>()),
            }
        })
        .await;
        let bad: Vec<_> = log.lines().filter(|l| l.contains("ERROR")).collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}

pub const SECRET: &str = "kept-from-sandboxes";

/// A sandbox to attack from.
pub struct Target<'a> {
    ground: &'a Ground,
    pub id: String,
    program: &'static str,
}

impl Target<'_> {
    pub fn client(&self) -> &Client {
        self.ground.client()
    }

    /// What the host's programs have none of has to be brought along, as text.
    async fn carry(&self) {
        let text = Command::new("base64").arg("-w0").arg(attacker()).output().expect("base64");
        let text = String::from_utf8(text.stdout).expect("it is ASCII");
        self.client().write_file(&self.id, "/tmp/a.b64", &text, None).await.unwrap();
        let unpack = format!("base64 -d </tmp/a.b64 >{CARRIED} && chmod 755 {CARRIED}");
        assert_eq!(self.shell(&unpack).await, "");
    }

    pub async fn exec(&self, words: &[&str], timeout: &str) -> Result<api::ExecResult, Error> {
        let request = api::ExecRequest {
            command: words.first().map(|w| (*w).to_owned()),
            args: Some(words.iter().skip(1).map(|w| (*w).to_owned()).collect()),
            mode: Some("argv".into()),
            timeout: Some(timeout.into()),
            ..Default::default()
        };
        self.client().exec(&self.id, &request).await
    }

    /// Runs attacks, one after the other.
    pub async fn attack(&self, attacks: &[&str]) -> Vec<Verdict> {
        let done = self.exec(&[&[self.program], attacks].concat(), "2m").await;
        let done = done.unwrap_or_else(|e| panic!("{attacks:?}: {e:?}\n{}", self.log()));
        let seen = verdicts(&done.stdout);
        assert_eq!(seen.len(), attacks.len(), "{attacks:?}: {done:?}");
        seen
    }

    /// Runs one attack.
    pub async fn try_one(&self, attack: &str) -> Verdict {
        self.attack(&[attack]).await.remove(0)
    }

    /// The output of a script, which must succeed.
    pub async fn shell(&self, script: &str) -> String {
        let done = self.exec(&["sh", "-c", script], "30s").await;
        let done = done.unwrap_or_else(|e| panic!("{script}: {e:?}\n{}", self.log()));
        assert_eq!(done.exit_code, 0, "{script}: {done:?}");
        done.stdout
    }

    /// It answers to everything: the agent is well.
    pub async fn is_well(&self) {
        self.answers().await.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
    }

    /// Whether it answers to everything, and if not, with what.
    pub async fn answers(&self) -> Result<(), String> {
        let said = self.exec(&["sh", "-c", "echo here"], "10s").await;
        if !said.as_ref().is_ok_and(|done| done.exit_code == 0 && done.stdout == "here\n") {
            return Err(format!("{said:?}"));
        }
        let seen = self.client().list_files(&self.id, "/").await;
        if !seen.as_ref().is_ok_and(|seen| seen.iter().any(|f| f.path == "/proc")) {
            return Err(format!("{seen:?}"));
        }
        Ok(())
    }

    /// Not the host: asked before anything that would be real there.
    pub async fn is_elsewhere(&self) {
        for kind in ["mnt", "pid", "user"] {
            let link = format!("/proc/self/ns/{kind}");
            let here = std::fs::read_link(&link).expect("there are namespaces");
            let there = self.shell(&format!("readlink {link}")).await;
            assert!(there.starts_with(kind), "{there:?}");
            assert_ne!(there.trim(), here.to_string_lossy(), "the same {kind} namespace");
        }
    }

    pub fn program(&self) -> &str {
        self.program
    }

    fn log(&self) -> String {
        self.ground.server().log()
    }
}

/// Imports a busybox image with the attacker in it, changed by `change`.
pub fn import(system: &System, name: &str, change: &dyn Fn(&Path)) {
    let (done, words) = try_import(system, name, change);
    assert!(done, "importing {name}: {words}");
}

/// Whether it was let in, and what was said.
pub fn try_import(system: &System, name: &str, change: &dyn Fn(&Path)) -> (bool, String) {
    let root = TempDir::new().expect("a temporary folder can be made");
    testkit::busybox_rootfs(root.path()).expect("busybox is there");
    std::fs::copy(attacker(), root.path().join("bin/attacker")).expect("there is room");
    change(root.path());
    let path = root.path().to_str().expect("temporary folders have plain names");
    let import = ["image", "import", path, "--tag", name];
    let done = system.command(&import).output().expect("the binary can be run");
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}
