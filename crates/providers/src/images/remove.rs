//! Removing images: refused while anything uses them.

use std::fs;

use types::{ErrorCode, Fault};

use super::fault::{io, shown};
use super::locks::LayerLock;
use super::manifest::Manifest;
use super::mounted::{mounted, shown_whole};
use super::reference::{ImageName, digest_file, ref_file};
use super::root::Root;
use super::store::{ImageStore, read_file, read_ref};

/// Fewer hex digits of a digest than this name nothing.
const FEWEST_DIGITS: usize = 8;

impl ImageStore {
    /// Removes a name, and with an image's last name the image. A digest, whole or its first 8 or
    /// more digits, removes the image with all its names. One in use is a conflict.
    pub async fn remove(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.blocking(move |store| store.remove_now(&name)).await
    }

    pub(super) fn remove_now(&self, text: &str) -> Result<(), Fault> {
        let root = self.root();
        let staging = root.stage()?;
        // The lock goes first, the removed trees only then: they may take a while.
        let _lock = root.lock_exclusive()?;
        let (digest, name) = self.find(text)?;
        let names = self.names_of(&digest)?;
        if let Some(name) = &name
            && names.len() > 1
        {
            return unname(root, name);
        }
        let layers = self.own_layers(&digest)?;
        let locks = self.locks_to_remove(&digest, &layers)?.ok_or_else(|| {
            let image = name.as_deref().or(names.first().map(String::as_str)).unwrap_or(text);
            Fault::new(
                ErrorCode::Conflict,
                format!("the image '{}' is in use by a sandbox", shown(image.as_bytes())),
            )
        })?;
        let failed = io("removing the image failed");
        for file in self.refs_to(&digest)? {
            fs::remove_file(root.refs().join(file)).map_err(&failed)?;
        }
        fs::remove_file(root.manifests().join(format!("{digest}.json"))).map_err(&failed)?;
        for short in &layers {
            staging.take_in(&root.layer(short)).map_err(&failed)?;
            fs::remove_file(root.layer_lock(short)).map_err(&failed)?;
        }
        drop(locks);
        Ok(())
    }

    /// The locks of an image's own layers; `None` if a sandbox uses it.
    fn locks_to_remove(
        &self,
        digest: &str,
        own: &[String],
    ) -> Result<Option<Vec<LayerLock>>, Fault> {
        let root = self.root();
        let all = Manifest::read(root, digest)?.map(|manifest| manifest.layers);
        let all: Vec<String> = all.iter().flatten().map(super::manifest::Layer::short).collect();
        match unused(root, own)? {
            // Layers that others have as well stay; yet it may be this image that is shown.
            Some(_) if all.len() > own.len() && shown_whole(&all) => Ok(None),
            locks => Ok(locks),
        }
    }

    /// The digest that is meant, and the name if it was one.
    pub(super) fn find(&self, text: &str) -> Result<(String, Option<String>), Fault> {
        let root = self.root();
        let wanted = ImageName::parse(text);
        if let Ok(ImageName::Host) = wanted {
            return Err(Fault::bad_request("'host' is this machine's own and can't be removed"));
        }
        if let Ok(ImageName::Reference { name, digest: None }) = &wanted
            && let Some(digest) = read_ref(root, name)?
        {
            return Ok((digest, Some(name.clone())));
        }
        let hex = match &wanted {
            Ok(ImageName::Digest(hex) | ImageName::Reference { digest: Some(hex), .. }) => hex,
            _ => text.strip_prefix("sha256:").unwrap_or(text),
        };
        let digits = hex.len() >= FEWEST_DIGITS && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(digest) = read_file(&root.refs().join(digest_file(hex)))? {
            return Ok((digest, None));
        }
        let mut found = self.digests()?.into_iter().filter(|d| digits && d.starts_with(hex));
        match (found.next(), found.next()) {
            (Some(digest), None) => Ok((digest, None)),
            (Some(_), Some(_)) => Err(Fault::bad_request("several images begin like that")),
            (None, _) => match wanted {
                Ok(name) => {
                    Err(Fault::new(ErrorCode::ImageNotFound, format!("there is no image '{name}'")))
                }
                Err(fault) => Err(fault),
            },
        }
    }

    /// Layers that no other image has.
    fn own_layers(&self, digest: &str) -> Result<Vec<String>, Fault> {
        let root = self.root();
        let mut own: Vec<String> = match Manifest::read(root, digest)? {
            Some(manifest) => manifest.layers.iter().map(super::manifest::Layer::short).collect(),
            None => return Ok(Vec::new()),
        };
        for other in self.manifests()?.iter().filter(|m| m.digest() != digest) {
            own.retain(|short| other.layers.iter().all(|l| l.short() != *short));
        }
        own.retain(|short| root.layer(short).exists());
        Ok(own)
    }
}

/// Locks layers that nobody uses; `None` if somebody uses one of them. Locked before mount tables
/// are read, so that none comes between: who wants to mount has to hold first.
pub(super) fn unused(root: &Root, layers: &[String]) -> Result<Option<Vec<LayerLock>>, Fault> {
    let mut locks = Vec::with_capacity(layers.len());
    for short in layers {
        match root.lock_unheld_layer(short)? {
            Some(lock) => locks.push(lock),
            None => return Ok(None),
        }
    }
    Ok(mounted(layers).is_empty().then_some(locks))
}

fn unname(root: &Root, name: &str) -> Result<(), Fault> {
    fs::remove_file(root.refs().join(ref_file(name))).map_err(io("removing the name failed"))
}
