//! How much an image may hold. Archives are hostile: nothing in one is trusted to be small.

/// Bounds of one import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Content of all files together, and the length of the archive once decompressed.
    pub total_bytes: u64,
    /// Files, directories and links, those included that entries only imply.
    pub entries: u64,
    /// A path or a link's target.
    pub path_bytes: usize,
    /// Directories in directories. Keeps walks within the descriptors a process has.
    pub depth: usize,
    /// How many times larger than what was read the decompressed archive may be, once it is larger
    /// than `ratio_from`. Program trees shrink 3 to 10 times, zeros 1,030 times.
    pub ratio: u64,
    pub ratio_from: u64,
    /// What has to stay free on the store's disk.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 64 << 30,
            entries: 5_000_000,
            path_bytes: 4095,
            depth: 256,
            ratio: 250,
            ratio_from: 1 << 30,
            reserve_bytes: 64 << 20,
        }
    }
}

/// The longest name of one file; what Linux file systems take.
pub(super) const NAME_BYTES: usize = 255;

/// The longest extended header or long name that is read into memory.
pub(super) const HEADER_BYTES: u64 = 1 << 20;
