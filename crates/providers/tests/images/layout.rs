//! Makes OCI layouts and looks at what became of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use providers::PreparedImage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::gzip;

/// An OCI layout being written.
pub struct Layout {
    pub dir: PathBuf,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
}

pub fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

pub enum Pack {
    Plain,
    Gzip,
    Zstd,
}

impl Layout {
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir, layers: Vec::new(), diff_ids: Vec::new() }
    }

    /// Writes a blob and gives its descriptor.
    pub fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let hex = sha256(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&hex), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    pub fn layer(mut self, tar: &[u8], pack: Pack) -> Self {
        let (bytes, kind) = match pack {
            Pack::Plain => (tar.to_vec(), "layer.v1.tar"),
            Pack::Gzip => (gzip(tar), "layer.v1.tar+gzip"),
            Pack::Zstd => (zstd(tar), "layer.v1.tar+zstd"),
        };
        self.layers.push(self.blob(kind, &bytes));
        self.diff_ids.push(format!("sha256:{}", sha256(tar)));
        self
    }

    /// Writes configuration and manifest; gives the manifest's descriptor.
    pub fn manifest(&self, run: Value) -> Value {
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": run,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        });
        let config = self.blob("config.v1+json", config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": self.layers,
        });
        self.blob("manifest.v1+json", manifest.to_string().as_bytes())
    }

    pub fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// The usual: one image of this name.
    pub fn done(self, name: &str, run: Value) -> PathBuf {
        let mut manifest = self.manifest(run);
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.index(&[manifest]);
        self.dir
    }
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Everything in a tree that two unpackers have to agree on: kind, mode, owner, time, content,
/// target, and which files are one.
pub fn listing(script: &str, dir: &Path) -> BTreeMap<String, String> {
    let list = r#"find . -mindepth 1 ! -type b ! -type c ! -type p \
        -printf '%P\t%y %m %U %G %l %Ts' \( -type f -printf ' %s %n' -o -true \) -printf '\n' &&
        echo == && find . -type f -exec sha256sum {} +"#;
    let done = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{script} {list}")])
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (tree, sums) = text.split_once("==\n").unwrap();
    let sums: BTreeMap<&str, &str> =
        sums.lines().map(|l| (l[66..].trim_start_matches("./"), &l[..64])).collect();
    let line = |line: &str| {
        let (path, rest) = line.split_once('\t').unwrap();
        (path.to_owned(), format!("{rest} {}", sums.get(path).unwrap_or(&"")))
    };
    tree.lines().map(line).collect()
}

/// The image as a sandbox sees it, without the base beneath it.
pub fn merged(layers_dir: &Path, image: &PreparedImage) -> BTreeMap<String, String> {
    let own = &image.layers[..image.layers.len() - 1];
    // An overlay wants two at least.
    let empty = "mkdir -p /tmp/empty";
    let lower = format!("{}:/tmp/empty", own.join(":"));
    let mount = format!(
        "mount -t tmpfs none /tmp && {empty} && mount -t overlay none -o lowerdir={lower} /mnt && \
         cd /mnt && "
    );
    listing(&mount, layers_dir)
}

/// That two trees are the same, or where they first differ.
pub fn assert_same(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) {
    let of = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<String> {
        a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, v)| format!("{k}: {v}")).collect()
    };
    let (a, b) = (of(ours, theirs), of(theirs, ours));
    let show = |v: &[String]| v.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(a.is_empty() && b.is_empty(), "ours:\n{}\ntheirs:\n{}", show(&a), show(&b));
}
