//! What died processes left: work under way, layers that no image has.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use types::Fault;

use super::remove::unused;
use super::root::{Root, names_in, remove_staged};
use super::store::ImageStore;

impl ImageStore {
    /// Starts the sweep if there is anything that looks like a leftover. It runs beside everything
    /// else: removing a large tree takes a while, and nobody has to wait for it.
    pub(super) fn sweep_aside(&self) {
        let left = || -> Result<bool, Fault> {
            let root = self.root();
            let work = !names_in(&root.tmp())?.is_empty() || !names_in(&root.making())?.is_empty();
            Ok(work || !self.orphans()?.is_empty())
        };
        if !left().unwrap_or(true) {
            return;
        }
        let store = self.clone();
        let started = std::thread::Builder::new().name("image-sweep".into()).spawn(move || {
            if let Err(error) = store.sweep() {
                tracing::warn!(%error, "image store: the sweep will be tried again next time");
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "image store: the sweep could not be started");
        }
    }

    fn sweep(&self) -> Result<(), Fault> {
        sweep_tmp(self.root())?;
        sweep_making(self.root())?;
        self.sweep_orphans()
    }

    /// Removes layers that no image has and nobody holds.
    pub(super) fn sweep_orphans(&self) -> Result<(), Fault> {
        if self.orphans()?.is_empty() {
            return Ok(());
        }
        let staging = self.root().stage()?;
        let _lock = self.root().lock_exclusive()?;
        for short in self.orphans()? {
            let layers = [short];
            if unused(self.root(), &layers)?.is_some() {
                // A crash may have left the lock file alone.
                let _ = staging.take_in(&self.root().layer(&layers[0]));
                let _ = fs::remove_file(self.root().layer_lock(&layers[0]));
            }
        }
        Ok(())
    }

    /// Layers and layer locks that belong to no image, nor to what this process made itself. Some
    /// may be held by others.
    fn orphans(&self) -> Result<Vec<String>, Fault> {
        let root = self.root();
        let mut names = names_in(root.layers())?;
        names.extend(names_in(&root.dir().join("locks"))?);
        names.sort();
        names.dedup();
        let kept: Vec<String> = self
            .manifests()?
            .iter()
            .flat_map(|m| m.layers.iter().map(super::manifest::Layer::short))
            .chain(self.builtin_layers())
            .collect();
        names.retain(|name| !kept.contains(name));
        Ok(names)
    }
}

/// Removes work whose owner is gone: its lock is free.
fn sweep_tmp(root: &Root) -> Result<(), Fault> {
    let tmp = root.tmp();
    for name in names_in(&tmp)? {
        let word = name.strip_suffix(".lock").unwrap_or(&name);
        let (dir, lock): (PathBuf, PathBuf) = (tmp.join(word), tmp.join(format!("{word}.lock")));
        let Ok(file) = File::open(&lock) else {
            // Its lock goes last, so a folder without one is nobody's.
            if !name.ends_with(".lock") && dir.exists() && !lock.exists() {
                remove_staged(&dir, &lock);
            }
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_staged(&dir, &lock);
        }
    }
    Ok(())
}

/// Removes locks that nobody holds, of processes that died while they made a layer.
fn sweep_making(root: &Root) -> Result<(), Fault> {
    for name in names_in(&root.making())? {
        let path = root.making().join(name);
        if let Ok(file) = File::open(&path)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
