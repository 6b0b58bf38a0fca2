//! One image as people look at it, and other names for it.

use types::Fault;

use super::manifest::{ImageInfo, Manifest};
use super::publish;
use super::reference::ImageName;
use super::store::ImageStore;

impl ImageStore {
    /// What is known of an image, by a name, a digest or its first digits.
    pub async fn inspect(&self, name: &str) -> Result<ImageInfo, Fault> {
        let name = name.to_owned();
        self.blocking(move |store| {
            let _lock = store.root().lock_shared()?;
            store.found(&name).and_then(|(_, manifest)| store.info(&manifest))
        })
        .await
    }

    /// Gives an image another name, which then means no other.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<ImageInfo, Fault> {
        let tag = ImageName::parse_tag(tag)?;
        let name = name.to_owned();
        self.blocking(move |store| {
            let staging = store.root().stage()?;
            let _lock = store.root().lock_exclusive()?;
            let (digest, manifest) = store.found(&name)?;
            publish::name(store.root(), &staging, &digest, &[tag])?;
            store.info(&manifest)
        })
        .await
    }

    fn found(&self, name: &str) -> Result<(String, Manifest), Fault> {
        let (digest, _) = self.find(name)?;
        let manifest = Manifest::read(self.root(), &digest)?;
        let manifest =
            manifest.ok_or_else(|| Fault::internal("the image's record is gone from the store"))?;
        Ok((digest, manifest))
    }
}
