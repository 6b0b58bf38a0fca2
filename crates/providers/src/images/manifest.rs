//! What is known of an image: its layers, its settings, and what people are told of it.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use types::{Fault, Timestamp};

use super::fault::io;
use super::root::Root;

/// The newest form of manifest that this code writes and understands.
const SCHEMA: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub schema: u32,
    #[serde(default)]
    pub config: Config,
    /// Topmost first.
    pub layers: Vec<Layer>,
    pub created: Timestamp,
    /// What it was imported from, so that the same thing again is looked at before it is unpacked.
    /// A hint only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// How programs in it start, if they don't say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// sha256 of what was unpacked, 64 hex digits.
    pub id: String,
    pub size_bytes: u64,
    pub entries: u64,
}

impl Layer {
    pub(super) fn short(&self) -> String {
        short(&self.id)
    }
}

impl Manifest {
    pub(super) fn new(layer: Layer, created: Timestamp, source: Option<String>) -> Self {
        Self { schema: SCHEMA, config: Config::default(), layers: vec![layer], created, source }
    }

    /// An image of several layers, topmost first.
    pub(super) fn of_layers(
        config: Config,
        layers: Vec<Layer>,
        created: Timestamp,
        source: String,
    ) -> Self {
        Self { schema: SCHEMA, config, layers, created, source: Some(source) }
    }

    /// What the image is, however and whenever it came here.
    pub(super) fn digest(&self) -> String {
        let ids: Vec<&str> = self.layers.iter().map(|l| l.id.as_str()).collect();
        let identity = serde_json::json!({ "config": self.config, "layers": ids });
        data_encoding::HEXLOWER.encode(&Sha256::digest(identity.to_string()))
    }

    pub(super) fn read(root: &Root, digest: &str) -> Result<Option<Self>, Fault> {
        let failed = "reading the image store failed";
        let bytes = match fs::read(root.manifests().join(format!("{digest}.json"))) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(failed)(e)),
        };
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Fault::internal("an image's record can't be read").caused_by(e))?;
        if manifest.schema > SCHEMA {
            return Err(Fault::unavailable("the image was stored by a newer version"));
        }
        Ok(Some(manifest))
    }

    pub(super) fn info(&self, names: Vec<String>, known_as: Vec<String>) -> ImageInfo {
        ImageInfo {
            names,
            digest: format!("sha256:{}", self.digest()),
            known_as,
            size_bytes: self.layers.iter().map(|l| l.size_bytes).sum(),
            entries: self.layers.iter().map(|l| l.entries).sum(),
            layers: self.layers.iter().map(Layer::short).collect(),
            created: self.created,
            last_used: self.created,
            env: self.config.env.clone(),
            workdir: self.config.workdir.clone(),
            user: self.config.user.clone(),
            existed: false,
            notes: Vec::new(),
        }
    }
}

pub use protocol::worker::ImageInfo;

/// The folder name of a layer: 100 bits of its id. Short, since an overlay's options name many.
pub(super) fn short(id: &str) -> String {
    let bytes = data_encoding::HEXLOWER
        .decode(id.as_bytes())
        .unwrap_or_else(|_| Sha256::digest(id.as_bytes()).to_vec());
    let mut text = data_encoding::BASE32_NOPAD.encode(&bytes[..bytes.len().min(13)]);
    text.truncate(20);
    text.make_ascii_lowercase();
    text
}
