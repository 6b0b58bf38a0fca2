//! Images in the forms that other tools and registries have them: what their documents say, and
//! where their layers lie in a folder or an archive.

mod documents;
mod local;
mod saved;

pub(super) use documents::{
    CONFIG_BYTES, Descriptor, Document, ImageConfig, MANIFEST_BYTES, choose, config_of, document,
    unusable,
};
pub(super) use local::{Local, looks_saved, open_archive, open_layout};

/// Reads a document that a registry or an archive may hold, and throws it away: for tests that
/// throw nonsense at it.
pub fn check_document(bytes: &[u8]) -> Result<(), types::Fault> {
    match documents::document(bytes) {
        Ok(Document::Index(list)) => documents::choose(&list).map(drop),
        Ok(Document::Image(manifest)) => manifest.check(),
        Err(_) => documents::config_of(bytes).map(drop),
    }
}
