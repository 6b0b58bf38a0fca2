//! Where sandboxes write: the disk store where there can be one, else a tmpfs for each.
//!
//! The disk store is one fallocated btrfs file on a loop device, which grows while it is mounted;
//! each sandbox has a subvolume on it with a limit of its own. What it holds does not eat the
//! sandbox's memory.

mod btrfs;
mod file;
mod grow;
mod layers;
mod loopdev;
mod mounted;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use protocol::spawner::Upper;
use tokio::task::spawn_blocking;
use types::{ErrorCode, Fault, SandboxId};

use grow::Grower;
use layers::{Keeper, Layers};
use mounted::{Mounted, Usage};

pub(super) use file::mkfs_program;

/// Which writable layer to give to sandboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StorageChoice {
    /// The disk store where it can be, else tmpfs.
    #[default]
    Auto,
    /// The disk store, or no start.
    Disk,
    Tmpfs,
}

#[derive(Debug, Clone)]
pub(crate) struct StorageConfig {
    pub choice: StorageChoice,
    /// Where the file and its mount point are, or will be.
    pub dir: PathBuf,
    /// How far it may grow; `None`: half of what is free.
    pub max_mb: Option<u64>,
    /// Use a store that is mounted, never make or mount one.
    pub join_only: bool,
    /// Prefix of our subvolumes.
    pub scope: String,
    /// Subvolumes to keep prepared.
    pub pool: usize,
}

pub(crate) enum Storage {
    Disk(Disk),
    /// Why it is not the disk store, fit for `doctor` and logs.
    Tmpfs {
        reason: String,
    },
}

pub(crate) struct Disk {
    mounted: Arc<Mounted>,
    layers: Arc<Layers>,
    keeper: Keeper,
    grower: Option<Grower>,
}

/// One inode for so many bytes of a tmpfs: its nodes live in kernel memory.
const TMPFS_BYTES_PER_INODE: u64 = 8192;
const TMPFS_INODES: std::ops::RangeInclusive<u64> = 1024..=1_000_000;

impl Storage {
    /// Opens, and with that mounts, the store. Only `StorageChoice::Disk` makes its absence a
    /// failure.
    pub async fn open(config: StorageConfig) -> Result<Self, Fault> {
        let choice = config.choice;
        if choice == StorageChoice::Tmpfs {
            return Ok(Self::Tmpfs { reason: "the configuration asks for tmpfs".into() });
        }
        let opened = spawn_blocking(move || {
            let mounted = Arc::new(Mounted::open(&config)?);
            let layers = Layers::new(mounted.clone(), &config.scope, config.pool)
                .map_err(|e| format!("its mount point can't be read: {e}"))?;
            Ok::<_, String>((mounted, Arc::new(layers), config.join_only))
        });
        let opened = opened.await.map_err(|e| Fault::internal("opening the store").caused_by(e))?;
        match opened {
            Ok((mounted, layers, join_only)) => {
                let keeper = Keeper::start(layers.clone());
                let grower = (!join_only).then(|| Grower::start(mounted.clone(), layers.clone()));
                Ok(Self::Disk(Disk { mounted, layers, keeper, grower }))
            }
            Err(reason) if choice == StorageChoice::Disk => Err(Fault::unavailable(format!(
                "the disk store can't be used: {reason} (providers.native.storage is `disk`)"
            ))),
            Err(reason) => Ok(Self::Tmpfs { reason }),
        }
    }

    /// The writable layer of a new sandbox.
    pub async fn provide(&self, id: &SandboxId, bytes: u64) -> Result<Upper, Fault> {
        match self {
            Self::Tmpfs { .. } => {
                let inodes = (bytes / TMPFS_BYTES_PER_INODE)
                    .clamp(*TMPFS_INODES.start(), *TMPFS_INODES.end());
                Ok(Upper::Tmpfs { bytes, inodes })
            }
            Self::Disk(disk) => {
                let (layers, id) = (disk.layers.clone(), id.clone());
                let taken = spawn_blocking(move || layers.take(&id, bytes)).await;
                let taken = taken.unwrap_or_else(|e| Err(std::io::Error::other(e)));
                disk.keeper.wake();
                taken.map(|name| Upper::Disk { name }).map_err(no_layer)
            }
        }
    }

    /// Has the layer of an ended sandbox removed, off the caller's path. Unknown ones are nothing.
    pub fn discard(&self, id: &SandboxId) {
        if let Self::Disk(disk) = self {
            disk.layers.discard(id);
            disk.keeper.wake();
        }
    }

    /// The sandboxes that have a layer.
    pub async fn sandboxes(&self) -> Vec<SandboxId> {
        let Self::Disk(disk) = self else { return Vec::new() };
        let layers = disk.layers.clone();
        spawn_blocking(move || layers.sandboxes()).await.unwrap_or_default()
    }

    /// What a sandbox has on the disk store, and how much it may have there. `None` with tmpfs:
    /// that is the sandbox's own, so that its agent can tell.
    pub async fn usage(&self, id: &SandboxId) -> Option<Usage> {
        let Self::Disk(disk) = self else { return None };
        let (layers, id) = (disk.layers.clone(), id.clone());
        spawn_blocking(move || layers.usage(&id)).await.ok().flatten()
    }

    /// The host directory that the spawner shows as `/disk`.
    pub fn mount_point(&self) -> Option<&std::path::Path> {
        match self {
            Self::Disk(disk) => Some(disk.mounted.point()),
            Self::Tmpfs { .. } => None,
        }
    }

    /// Removes what is queued, and unmounts the store if no sandbox of anybody is on it. The
    /// spawner must have ended: it holds the mount.
    pub async fn close(&self) {
        let Self::Disk(disk) = self else { return };
        if let Some(grower) = &disk.grower {
            grower.stop();
        }
        disk.keeper.stop().await;
        let (mounted, layers) = (disk.mounted.clone(), disk.layers.clone());
        let done = spawn_blocking(move || {
            layers.empty_pool();
            mounted.release()
        });
        match done.await {
            Ok(Ok(released)) => tracing::debug!(released, "the disk store is closed"),
            Ok(Err(error)) => tracing::warn!(%error, "the disk store stays mounted"),
            Err(error) => tracing::error!(%error, "closing the disk store"),
        }
    }
}

fn no_layer(error: std::io::Error) -> Fault {
    let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    if full {
        let message = "the disk store of this host is full";
        return Fault::new(ErrorCode::ResourceLimit, message).caused_by(error);
    }
    Fault::unavailable("no writable layer could be made").caused_by(error)
}
