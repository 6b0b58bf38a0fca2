//! A small tree held in memory, and its layer.

use std::collections::BTreeMap;
use std::io::Write;

use sha2::{Digest, Sha256};
use types::Fault;

use super::Kept;
use crate::images::Limits;
use crate::images::fault::from_io;
use crate::images::manifest::short;
use crate::images::root::Root;
use crate::images::store::place_layer;
use crate::images::unpack::{Meta, Tree};

/// By path; everything belongs to root.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, Node>);

enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Symlink(Vec<u8>),
}

impl Files {
    pub(super) fn dir(&mut self, path: impl Into<String>, mode: u32) -> &mut Self {
        self.0.insert(path.into(), Node::Directory(mode));
        self
    }

    pub(super) fn file(
        &mut self,
        path: impl Into<String>,
        mode: u32,
        content: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.0.insert(path.into(), Node::File(mode, content.into()));
        self
    }

    pub(super) fn symlink(
        &mut self,
        path: impl Into<String>,
        target: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.0.insert(path.into(), Node::Symlink(target.into()));
        self
    }

    /// Finds or makes the layer with these files, and keeps it from being swept.
    pub(super) fn keep(&self, root: &Root) -> Result<Kept, Fault> {
        let id = self.id();
        let name = short(&id);
        if let Ok(lock) = root.hold_layer(&name) {
            return Ok(Kept { name, _lock: lock });
        }
        let staging = root.stage()?;
        self.write(staging.tree()?.1)?;
        let _store = root.lock_exclusive()?;
        place_layer(root, &staging, &id, &id)?;
        // Held before the store is let go, so that no sweep comes between.
        let lock = root.hold_layer(&name)?;
        Ok(Kept { name, _lock: lock })
    }

    /// Names the content, and this boot: these layers are not flushed to disk when they are made,
    /// so one from before a power cut is not trusted.
    fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
        for (path, node) in &self.0 {
            let (kind, mode, content): (&str, u32, &[u8]) = match node {
                Node::Directory(mode) => ("d", *mode, b""),
                Node::File(mode, content) => ("f", *mode, content),
                Node::Symlink(target) => ("l", 0, target),
            };
            hash.update(format!("{kind} {mode:o} {} {}\n", path.len(), content.len()));
            hash.update(path);
            hash.update(content);
        }
        data_encoding::HEXLOWER.encode(&hash.finalize())
    }

    fn write(&self, into: std::os::fd::OwnedFd) -> Result<(), Fault> {
        // Ours, so no room is asked for: a sandbox should start on a disk that is nearly full.
        let mut tree = Tree::new(into, Limits { reserve_bytes: 0, ..Limits::default() });
        for (path, node) in &self.0 {
            let path = path.as_bytes();
            match node {
                Node::Directory(mode) => tree.dir(path, Meta::root(*mode))?,
                Node::File(mode, content) => tree.file(path, Meta::root(*mode), |_, file| {
                    file.write_all(content).map_err(|e| from_io("writing the image failed", e))
                })?,
                Node::Symlink(target) => tree.symlink(path, target, Meta::root(0o777))?,
            }
        }
        tree.finish().map(drop)
    }
}
