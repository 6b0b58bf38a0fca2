//! Bodies of `/sandboxes/{id}/files`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteRequest {
    pub path: Option<String>,
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MoveRequest {
    pub old_path: Option<String>,
    pub new_path: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChmodRequest {
    pub path: Option<String>,
    pub mode: Option<String>,
}

/// `PUT …/files/content`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub status: String,
    /// Bytes of the file.
    pub size: u64,
}

/// A file: absolute path, four-digit octal mode, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileInfo {
    pub path: String,
    pub size: u64,
    pub mode: String,
    pub is_dir: bool,
    pub mod_time: String,
}
