//! What the tests share: a store in a folder of its own, trees and archives to import.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use providers::images::{ImageInfo, ImageStore, Options};
use types::Fault;

pub struct Ground {
    pub dir: tempfile::TempDir,
    pub store: ImageStore,
}

impl Ground {
    pub fn new() -> Self {
        Self::with(&[], Options::default())
    }

    pub fn with(aliases: &[(&str, &str)], options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let aliases: BTreeMap<String, String> =
            aliases.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let store = ImageStore::open_with(dir.path().join("images"), aliases, options).unwrap();
        Self { dir, store }
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// A second store on the same folder, as another process would have.
    pub fn again(&self) -> ImageStore {
        ImageStore::open(self.images(), BTreeMap::new()).unwrap()
    }

    pub async fn import(&self, source: &Path, tag: &str) -> Result<ImageInfo, Fault> {
        self.store.import(source, Some(tag), |_| {}).await
    }

    /// Imports an archive of these bytes.
    pub async fn import_bytes(&self, bytes: &[u8]) -> Result<ImageInfo, Fault> {
        let path = self.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        self.import(&path, "test").await
    }

    /// Imports an archive and gives the tree it became.
    pub async fn unpacked(&self, bytes: &[u8]) -> PathBuf {
        let info = self.import_bytes(bytes).await.unwrap();
        self.store.layers_dir().join(&info.layers[0])
    }

    /// That a failed import left nothing.
    pub fn assert_clean(&self, layers: usize) {
        let images = self.images();
        assert_eq!(names(&images.join("tmp")), [""; 0], "tmp");
        assert_eq!(names(&images.join("layers")).len(), layers, "layers");
        assert_eq!(names(&images.join("locks")).len(), layers, "locks");
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A busybox root file system.
pub fn busybox(dir: &Path) {
    let listed = Command::new("/bin/busybox").arg("--list").output().expect("busybox-static");
    for part in ["bin", "etc", "usr"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for applet in listed.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
}

/// A tar made entry by entry, with names no honest program would write.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn entry(mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> Self {
        self.0.extend_from_slice(&header(kind, path, link, content.len() as u64));
        self.raw(content)
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(b'0', path, "", content)
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let text: String = records.iter().map(|(k, v)| pax_record(k, v)).collect();
        self.entry(b'x', "pax", "", text.as_bytes())
    }

    /// A header of our own making, without content.
    pub fn header(mut self, header: &tar::Header) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub fn raw(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// With the end marker.
    pub fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

pub fn header(kind: u8, path: &str, link: &str, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_000_000);
    header.set_uid(0);
    header.set_gid(0);
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    *header.as_bytes()
}

/// `LENGTH key=value\n`, the length counting itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Waits for something that another thread or process does.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited 10 s for {what}");
}

pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}
