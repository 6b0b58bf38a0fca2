//! The last step of bringing an image in: its manifest, then its names.

use types::{Fault, failpoint};

use super::manifest::{ImageInfo, Manifest};
use super::reference::{digest_file, ref_file};
use super::root::{Root, Staging};
use super::store::ImageStore;

/// Records an image whose layers are held, and names it.
pub(super) fn publish(
    store: &ImageStore,
    mut manifest: Manifest,
    names: &[String],
    digests: &[String],
) -> Result<ImageInfo, Fault> {
    let root = store.root();
    let staging = root.stage()?;
    let _lock = root.lock_exclusive()?;
    let digest = manifest.digest();
    if let Some(there) = Manifest::read(root, &digest)? {
        manifest.created = there.created;
    }
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    staging.place_file(&bytes, &root.manifests().join(format!("{digest}.json")))?;
    failpoint::hit("pull.recorded");
    for hex in digests {
        staging.place_file(digest.as_bytes(), &root.refs().join(digest_file(hex)))?;
    }
    name(root, &staging, &digest, names)?;
    failpoint::hit("pull.named");
    store.info(&manifest)
}

/// Lets names mean an image. Under the exclusive lock.
pub(super) fn name(
    root: &Root,
    staging: &Staging,
    digest: &str,
    names: &[String],
) -> Result<(), Fault> {
    let files = names.iter().map(|name| root.refs().join(ref_file(name)));
    for file in files {
        staging.place_file(digest.as_bytes(), &file)?;
    }
    Ok(())
}
