//! Layers that are made here, not imported: the base under every image, and the view of the host.

mod base;
mod etc;
mod files;
mod host;

use std::sync::{Arc, Mutex, PoisonError};

use types::Fault;
use types::clock::BootTime;

use super::locks::LayerLock;
use super::root::Root;
use super::store::Options;
use crate::PreparedImage;

/// What the host has changes seldom; it is looked at this often at most, in nanoseconds: 60 s.
const FRESH: u64 = 60_000_000_000;

pub(super) struct Builtin {
    base: Kept,
    host: Mutex<Option<Host>>,
    /// Held while the host is looked at, so that one does it and others wait for that.
    looking: Mutex<()>,
}

/// A layer kept for as long as this process may hand it out.
#[derive(Clone)]
struct Kept {
    name: String,
    _lock: Arc<LayerLock>,
}

struct Host {
    image: PreparedImage,
    looked: BootTime,
    fingerprint: String,
    _layer: Kept,
}

impl Builtin {
    pub(super) fn open(root: &Root) -> Result<Self, Fault> {
        let base = base::files().keep(root)?;
        Ok(Self { base, host: Mutex::default(), looking: Mutex::default() })
    }

    /// The layer with the places that every sandbox needs, beneath all others.
    pub(super) fn base(&self) -> String {
        self.base.name.clone()
    }

    /// The image `host`, if it was looked at lately. Of many who find it old, the first is sent to
    /// look and the others take it as it is.
    pub(super) fn host_if_fresh(&self, options: &Options) -> Option<PreparedImage> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.as_mut()?;
        let now = options.clock.boot();
        if u64::try_from(now.since(host.looked).as_nanos()).unwrap_or(u64::MAX) >= FRESH {
            host.looked = now;
            return None;
        }
        Some(host.image.clone())
    }

    /// The image `host` as the machine is now. Blocks.
    pub(super) fn host(&self, root: &Root, options: &Options) -> Result<PreparedImage, Fault> {
        let asked = options.clock.boot();
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
            match &*host {
                // Somebody looked while we waited.
                Some(host) if host.looked > asked => return Ok(host.image.clone()),
                host => host.as_ref().map(|h| (h.fingerprint.clone(), h.image.clone())),
            }
        };
        let plan = match (host::look(&options.host), &known) {
            (Ok(plan), _) => plan,
            (Err(error), Some((_, image))) => {
                tracing::warn!(%error, "the image host stays as it was");
                return Ok(image.clone());
            }
            (Err(error), None) => return Err(error),
        };
        let image = match known {
            Some((fingerprint, image)) if fingerprint == plan.fingerprint() => image,
            _ => {
                let layer = plan.keep(root)?;
                let image = PreparedImage {
                    resolved: "host".to_owned(),
                    layers: vec![layer.name.clone(), self.base()],
                    binds: plan.binds().to_vec(),
                    ..PreparedImage::default()
                };
                *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(Host {
                    image: image.clone(),
                    looked: asked,
                    fingerprint: plan.fingerprint().to_owned(),
                    _layer: layer,
                });
                image
            }
        };
        if let Some(host) = &mut *self.host.lock().unwrap_or_else(PoisonError::into_inner) {
            host.looked = options.clock.boot();
        }
        Ok(image)
    }

    /// Layers that must stay though no image has them: this process's, and the one that the next
    /// process will want.
    pub(super) fn layers(&self, root: &Root) -> Vec<String> {
        let mut layers = vec![self.base()];
        layers.extend(host::recorded(root).map(|record| record.layer));
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        layers.extend(host.iter().flat_map(|h| h.image.layers.iter().cloned()));
        layers
    }
}
