//! What the native provider is told.

use std::path::PathBuf;
use std::sync::Arc;

use types::clock::SharedClock;

use super::StorageChoice;
use super::storage::StorageConfig;
use crate::host::Identity;
use crate::images::ImageStore;

#[derive(Clone)]
pub struct NativeConfig {
    pub images: Arc<ImageStore>,
    /// Where the sandboxes' folders are. With the installation id it says what is ours.
    pub sandboxes_dir: PathBuf,
    /// Where the disk store is, or will be.
    pub disk_dir: PathBuf,
    pub installation_id: String,
    pub storage: StorageChoice,
    /// How far the disk store may grow; `None`: half of what is free.
    pub storage_size_mb: Option<u64>,
    /// Use the disk store of a server if one is mounted, but make none (`stacyvm run`).
    pub storage_join_only: bool,
    /// Processes a sandbox may have.
    pub pids_limit: u32,
    /// Prepared slots and writable layers to keep at hand.
    pub pool: u32,
    /// Blocks of 64 uid ranges to claim, each range for one sandbox.
    pub uid_blocks: u32,
    pub clock: SharedClock,
}

impl NativeConfig {
    pub(super) fn identity(&self) -> Identity {
        Identity::new(&self.installation_id, &self.sandboxes_dir, "")
    }

    pub(super) fn storage(&self, identity: &Identity) -> StorageConfig {
        StorageConfig {
            choice: self.storage,
            dir: self.disk_dir.clone(),
            max_mb: self.storage_size_mb,
            join_only: self.storage_join_only,
            scope: identity.scope().to_owned(),
            // A guest in another's store leaves nothing prepared behind.
            pool: if self.storage_join_only { 0 } else { self.pool as usize },
        }
    }
}
