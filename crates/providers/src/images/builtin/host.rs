//! The image `host`: this machine's programs and libraries, bound read-only, and a skeleton around
//! them with a curated `/etc`.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use types::Fault;

use super::Kept;
use super::base::{HOSTNAME, HOSTS};
use super::etc::{self, Etc};
use super::files::Files;
use crate::images::fault::io;
use crate::images::root::Root;

/// Shown where they are directories; where the host has links (merged /usr), so has the skeleton.
const PROGRAMS: [&str; 7] = protocol::spawner::HOST_PROGRAMS;

/// System users of the usual distributions, so that names resolve. `*`: no password fits, and
/// none is looked for in a shadow file that is not there.
const USERS: [(&str, u32, u32, &str); 7] = [
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("mail", 8, 8, "/var/mail"),
    ("www-data", 33, 33, "/var/www"),
    ("_apt", 42, 65534, "/nonexistent"),
    ("nobody", 65534, 65534, "/nonexistent"),
];
const GROUPS: [(&str, u32); 17] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("mail", 8),
    ("kmem", 15),
    ("sudo", 27),
    ("audio", 29),
    ("www-data", 33),
    ("shadow", 42),
    ("utmp", 43),
    ("staff", 50),
    ("users", 100),
    ("nogroup", 65534),
];

/// What was made last, by any process: the next need not build it again.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    fingerprint: String,
    pub(super) layer: String,
}

/// What there is to show.
pub(super) struct Plan {
    links: Vec<(&'static str, Vec<u8>)>,
    binds: Vec<String>,
    bash: bool,
    etc: Etc,
    fingerprint: String,
}

/// Looks at the host without reading any content. `root` is `/` but in tests.
pub(super) fn look(root: &Path) -> Result<Plan, Fault> {
    let failed = io("looking at this machine's programs failed");
    let (mut links, mut binds) = (Vec::new(), Vec::new());
    for name in PROGRAMS {
        let path = root.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            binds.push(path.to_string_lossy().into_owned());
        } else if meta.is_symlink() {
            links.push((name, fs::read_link(&path).map_err(&failed)?.into_os_string().into_vec()));
        }
    }
    let bash = fs::metadata(root.join("bin/bash")).is_ok_and(|m| m.is_file());
    let etc = etc::look(root)?;
    let mut hash = Sha256::new();
    hash.update(fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    hash.update(format!("{PROGRAMS:?} {links:?} {binds:?} {bash}\n"));
    hash.update(format!("{:?}", fs::metadata(root).map(|m| (m.dev(), m.ino())).ok()));
    hash.update(env!("CARGO_PKG_VERSION"));
    etc.fingerprint(&mut hash);
    let fingerprint = data_encoding::HEXLOWER.encode(&hash.finalize());
    Ok(Plan { links, binds, bash, etc, fingerprint })
}

impl Plan {
    /// Changes when anything that the skeleton was made from does.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Host directories to show, in the places they have.
    pub(super) fn binds(&self) -> &[String] {
        &self.binds
    }

    /// Finds or makes the skeleton.
    pub(super) fn keep(&self, root: &Root) -> Result<Kept, Fault> {
        if let Some(record) = recorded(root)
            && record.fingerprint == self.fingerprint
            && let Ok(lock) = root.hold_layer(&record.layer)
        {
            return Ok(Kept { name: record.layer, _lock: lock });
        }
        let kept = self.files()?.keep(root)?;
        let record = Record { fingerprint: self.fingerprint.clone(), layer: kept.name.clone() };
        let bytes = serde_json::to_vec(&record).expect("a record is plain data");
        root.stage()?.place_file(&bytes, &root.host_record())?;
        Ok(kept)
    }

    fn files(&self) -> Result<Files, Fault> {
        let mut files = Files::default();
        files.dir("etc", 0o755);
        for (name, target) in &self.links {
            files.symlink(*name, target.clone());
        }
        for bind in &self.binds {
            let name = bind.rsplit('/').next().expect("rsplit gives at least one");
            files.dir(name, 0o755);
        }
        self.etc.copy(&mut files)?;
        files
            .file("etc/passwd", 0o644, passwd(self.bash))
            .file("etc/group", 0o644, group())
            .file("etc/hosts", 0o644, HOSTS)
            .file("etc/hostname", 0o644, HOSTNAME)
            .file("etc/resolv.conf", 0o644, "")
            // What PAM's modules insist on; the machine's own limits can't be raised to inside.
            .dir("etc/security", 0o755)
            .file("etc/security/limits.conf", 0o644, "")
            .file("etc/security/pam_env.conf", 0o644, "");
        Ok(files)
    }
}

pub(super) fn recorded(root: &Root) -> Option<Record> {
    serde_json::from_slice(&fs::read(root.host_record()).ok()?).ok()
}

fn passwd(bash: bool) -> String {
    let shell = if bash { "/bin/bash" } else { "/bin/sh" };
    let mut text = format!("root:*:0:0:root:/root:{shell}\n");
    for (name, uid, gid, home) in USERS {
        text.push_str(&format!("{name}:*:{uid}:{gid}:{name}:{home}:/usr/sbin/nologin\n"));
    }
    text
}

fn group() -> String {
    GROUPS.iter().map(|(name, gid)| format!("{name}:*:{gid}:\n")).collect()
}
