//! What must hold for any bytes: the fuzz targets, free of any fuzzer.

mod frame_decoder;
mod tar_import;

pub use frame_decoder::frame_decoder;
pub use tar_import::tar_import;

/// Panics if something does not hold.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 2] =
    [("frame_decoder", frame_decoder), ("tar_import", tar_import)];
