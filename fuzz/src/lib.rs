//! What must hold for any bytes: the fuzz targets, free of any fuzzer.

mod archive_upload;
mod frame_decoder;
mod image_document;
mod image_layer;
mod session_words;
mod tar_import;

pub use archive_upload::archive_upload;
pub use frame_decoder::frame_decoder;
pub use image_document::image_document;
pub use image_layer::image_layer;
pub use session_words::session_words;
pub use tar_import::tar_import;

/// Panics if something does not hold.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("archive_upload", archive_upload),
    ("frame_decoder", frame_decoder),
    ("image_document", image_document),
    ("image_layer", image_layer),
    ("session_words", session_words),
    ("tar_import", tar_import),
];
