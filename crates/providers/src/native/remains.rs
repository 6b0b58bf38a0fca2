//! Removes what a worker that no longer exists left on the host: one whose folder is about to go.

use types::Fault;

use super::NativeConfig;
use super::storage::Storage;
use crate::host::{CgroupTree, Identity, end_all, mounts};

/// Ends every sandbox of that installation and folder, without a spawner. The caller holds the
/// folder's lock. Returns how many there were.
pub async fn remove_remains(config: &NativeConfig) -> Result<usize, Fault> {
    let identity: Identity = config.identity();
    let table = mounts().map_err(|e| Fault::internal("reading the mounts").caused_by(e))?;
    let tree = CgroupTree::prepare(&table, &identity);
    let mut found = tree.sandboxes();
    for id in &found {
        let groups = tree.sandbox(id);
        end_all(groups.clone(), None, false)
            .await
            .map_err(|e| Fault::unavailable("its processes do not end").caused_by(e))?;
        groups.remove();
    }
    tree.remove_if_empty();
    let mut storage = config.storage(&identity);
    (storage.join_only, storage.pool) = (true, 0);
    storage.choice = super::StorageChoice::Auto;
    let storage = Storage::open(storage).await?;
    for id in storage.sandboxes().await {
        storage.discard(&id);
        found.insert(id);
    }
    storage.close().await;
    Ok(found.len())
}
