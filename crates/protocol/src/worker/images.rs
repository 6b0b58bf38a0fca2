//! The images of a worker: what is asked of them, what is told of them.

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use types::{Fault, Timestamp};

/// A stored image.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ImageInfo {
    /// Sorted. Empty if every name it had means another image by now.
    pub names: Vec<String>,
    /// `sha256:` and 64 hex digits; a name of its own.
    pub digest: String,
    /// Digests that registries know it by: of its manifest, of the index it was in.
    pub known_as: Vec<String>,
    /// Content of its files.
    pub size_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Its folders in the store, topmost first.
    pub layers: Vec<String>,
    pub created: Timestamp,
    /// When a sandbox was last made of it, to within minutes; when it came here, if none was.
    pub last_used: Timestamp,
    /// `KEY=value` of its programs.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// After an import: the content was here already.
    pub existed: bool,
    /// After an import: what was left out or changed.
    pub notes: Vec<String>,
}

/// What is asked. Images are meant by a name, a digest or its first digits.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageOp {
    List,
    Inspect {
        image: String,
    },
    /// From its registry; joins a pull that runs.
    Pull {
        image: String,
    },
    Tag {
        image: String,
        tag: String,
    },
    Remove {
        image: String,
    },
    Prune(Prune),
}

pub enum ImageReply {
    /// Newest first.
    Images(Vec<ImageInfo>),
    Image(Box<ImageInfo>),
    Pull(PullStream),
    Pruned(Pruned),
    Done,
}

/// How a pull goes; `Done` is the last. Dropping it does not stop the pull.
pub type PullStream = Pin<Box<dyn Stream<Item = PullEvent> + Send>>;

/// What a pull has to tell.
#[derive(Debug)]
pub enum PullEvent {
    Progress(PullProgress),
    Done(Result<Box<ImageInfo>, Fault>),
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    pub layers: u64,
    pub layers_done: u64,
    /// Of the layers as they lie at the registry; those that are here already count as read.
    pub bytes: u64,
    pub total_bytes: u64,
}

/// Which images may go. Each thing said adds to the others; one in use never goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Images without a name.
    pub nameless: bool,
    /// All that no sandbox uses.
    pub all: bool,
    /// Those that no sandbox was made of for so long.
    pub unused_for: Option<Duration>,
    /// The ones unused for longest, until the rest is no larger than so many bytes.
    pub keep_bytes: Option<u64>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pruned {
    pub removed: Vec<ImageInfo>,
    pub freed_bytes: u64,
}
