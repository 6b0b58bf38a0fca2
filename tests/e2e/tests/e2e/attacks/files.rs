//! Files of the host: for programs inside, and for the file calls.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use client::{Client, api};
use tempfile::TempDir;

use super::control::{self, Control};
use super::ground::{Ground, IMAGE, SECRET, Target};

/// A folder of the host that anybody may read, with a secret in it.
pub struct Outside(TempDir);

impl Outside {
    pub fn new() -> Self {
        // Not below /tmp, which a control has one of its own of.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::write(dir.path().join("secret"), SECRET).unwrap();
        open(dir.path(), 0o777);
        open(&dir.path().join("secret"), 0o666);
        Self(dir)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub fn secret(&self) -> String {
        format!("{}/secret", self.path())
    }

    /// As it was made.
    pub fn is_untouched(&self, after: &str) {
        let names: Vec<_> = fs::read_dir(self.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "after {after}: {names:?}");
        assert_eq!(fs::read_to_string(self.secret()).unwrap(), SECRET, "after {after}");
        let mode = fs::metadata(self.secret()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o666, "after {after}");
    }
}

#[tokio::test]
async fn programs_cannot_read_the_hosts_files() {
    if !control::possible() {
        return;
    }
    let (ground, outside) = (Ground::new().await, Outside::new());
    let secret = outside.secret();
    let attacks = ["read_path", "read_dotdot", "chroot_escape", "read_proc_root"];
    let attacks = attacks.map(|a| format!("{a}={secret}"));
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        for attack in &attacks {
            let seen = target.try_one(attack).await;
            assert!(matches!(seen.error(), Some("ENOENT" | "EACCES")), "{image}: {seen:?}");
        }
        for path in ["/etc/shadow", "/root/.ssh", "/var/lib", "/etc/ssl/private", "/boot"] {
            let seen = target.try_one(&format!("read_path={path}")).await;
            assert_eq!(seen.error(), Some("ENOENT"), "{image}: {seen:?}");
        }
    }
    for attack in &attacks {
        let seen = Control::User.run(&[attack]).unwrap();
        assert!(seen.iter().all(|v| v.broke()), "{seen:?}");
    }
    ground.end().await;
}

/// Every way that a name can be led outside.
fn ways_out(outside: &Outside) -> Vec<String> {
    let (path, up) = (outside.path(), "/..".repeat(12));
    let mut ways = vec![
        path.to_owned(),
        format!("{up}{path}"),
        format!("/workspace{up}{path}"),
        format!("{}{path}", "../".repeat(12)),
        "/workspace/absolute".to_owned(),
        "/workspace/relative".to_owned(),
        "/workspace/top/".to_owned() + &path[1..],
    ];
    for process in ["self", "1", "thread-self"] {
        for link in ["root", "cwd", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8"] {
            ways.push(format!("/proc/{process}/{link}{up}{path}"));
        }
    }
    ways
}

#[tokio::test]
async fn the_file_calls_stay_inside() {
    if !control::possible() {
        return;
    }
    let (ground, outside) = (Ground::new().await, Outside::new());
    let target = ground.spawn(IMAGE).await;
    let path = outside.path();
    let top = "../".repeat(12);
    target
        .shell(&format!(
            "cd /workspace && ln -s {path} absolute && ln -s {top}{path} relative && ln -s {top} top"
        ))
        .await;
    let (client, id) = (ground.client(), target.id.as_str());
    for way in ways_out(&outside) {
        let secret = format!("{way}/secret");
        if let Ok(read) = client.read_file(id, &secret).await {
            panic!("read {secret}: {read:?}");
        }
        assert!(client.stat_file(id, &secret).await.is_err(), "{secret}");
        let listed = client.list_files(id, &way).await.unwrap_or_default();
        assert!(!listed.iter().any(|f| f.path.ends_with("/secret")), "{way}: {listed:?}");
        let found = client.glob_files(id, &format!("{way}/*")).await.unwrap_or_default();
        assert!(!found.iter().any(|f| f.ends_with("/secret")), "{way}: {found:?}");
        // These may work, on files of the sandbox's own of that name.
        let _ = client.chmod_file(id, &secret, "0600").await;
        let _ = client.move_file(id, &secret, "/workspace/taken").await;
        let _ = client.delete_file(id, &secret, false).await;
        let _ = client.write_file(id, &format!("{way}/planted"), "x", None).await;
        let _ = client.write_file(id, "/workspace/own", "x", None).await;
        let _ = client.move_file(id, "/workspace/own", &secret).await;
        let _ = client.delete_file(id, &way, true).await;
        outside.is_untouched(&way);
    }
    // The agent's own folder in /proc, as the agent.
    for file in ["environ", "maps", "mem", "cmdline", "exe", "fd/3", "mountinfo"] {
        for process in ["self", "1"] {
            let path = format!("/proc/{process}/{file}");
            let read = client.read_file(id, &path).await.unwrap_or_default();
            let read = String::from_utf8_lossy(&read).into_owned();
            let data = ground.system().data_dir();
            assert!(!read.contains(SECRET), "{path}: {read}");
            assert!(!read.contains(data.to_str().unwrap()), "{path}: {read}");
            // A link's text may lead to a place of the sandbox's own, and no further.
            let wrote = client.write_file(id, &path, "1", None).await.is_ok();
            assert!(!wrote || file == "exe", "wrote {path}");
        }
    }
    target.is_well().await;
    ground.end().await;
}

/// A folder and a link out of it change places, thousands of times, while files are read and
/// written below.
#[tokio::test]
async fn the_file_calls_win_every_race() {
    if !control::possible() {
        return;
    }
    let (ground, outside) = (Ground::new().await, Outside::new());
    let target = ground.spawn(IMAGE).await;
    let path = outside.path();
    let set = format!(
        "mkdir -p /workspace/s/d && cd /workspace/s && echo inside >d/secret && \
         ln -s {}{path} l && {{ {} swap=/workspace/s >/dev/null 2>&1 & }}",
        "../".repeat(12),
        target.program()
    );
    target.shell(&set).await;
    let (client, id) = (ground.client(), target.id.as_str());
    let (mut inside, mut missed) = (0, 0);
    for round in 0..250 {
        match client.read_file(id, "/workspace/s/d/secret").await {
            Ok(read) if read == "inside\n" => inside += 1,
            Ok(read) => panic!("read {read:?}"),
            Err(_) => missed += 1,
        }
        let _ = client.write_file(id, "/workspace/s/d/planted", "x", None).await;
        let _ = client.chmod_file(id, "/workspace/s/d/secret", "0644").await;
        let _ = client.delete_file(id, "/workspace/s/d/planted", false).await;
        let _ = client.glob_files(id, "/workspace/s/**/secret").await;
        if round % 50 == 0 {
            outside.is_untouched("a race");
        }
    }
    outside.is_untouched("a race");
    assert!(inside > 0 && missed > 0, "there was no race: {inside} to {missed}");
    ground.end().await;
}

/// For attacks that come with a spawn: what a client gets is an answer, whatever it is.
pub async fn spawned<'a>(ground: &'a Ground, image: &str) -> Option<Target<'a>> {
    let client: &Client = ground.client();
    let request = api::SpawnRequest { image: Some(image.into()), ..Default::default() };
    match client.spawn(&request).await {
        Ok(made) => Some(ground.target(made.id)),
        Err(refused) => {
            println!("{image} is refused: {refused}");
            None
        }
    }
}
