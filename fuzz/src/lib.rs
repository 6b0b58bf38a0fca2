//! What must hold for any bytes: the fuzz targets, free of any fuzzer.

mod frame_decoder;
mod session_words;
mod tar_import;

pub use frame_decoder::frame_decoder;
pub use session_words::session_words;
pub use tar_import::tar_import;

/// Panics if something does not hold.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 3] = [
    ("frame_decoder", frame_decoder),
    ("session_words", session_words),
    ("tar_import", tar_import),
];
