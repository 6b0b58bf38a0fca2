//! Bodies of `/images`.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A stored image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Sorted; none if every name it had means another by now.
    pub names: Vec<String>,
    /// A name of its own, for all time.
    pub digest: String,
    /// What registries call it.
    #[serde(default)]
    pub known_as: Vec<String>,
    pub size_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    pub layers: u64,
    pub created: Timestamp,
    pub last_used: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// `POST /images/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    #[serde(default)]
    pub image: String,
    /// Answer with lines as it goes, instead of once at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// A line of a streamed pull.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PullLine {
    /// `pulling`; the last is `done` or `error`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Of an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `POST /images/{name}/tag`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    #[serde(default)]
    pub tag: String,
}

/// `POST /images/prune`. Images without a name go in any case; none that is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneImagesRequest {
    /// All that no sandbox uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Those that no sandbox was made of for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_for: Option<String>,
    /// The ones unused for longest, until the rest is no larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_mb: Option<u64>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PrunedImages {
    pub removed: Vec<Image>,
    pub freed_bytes: u64,
}
