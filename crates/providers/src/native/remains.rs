//! Removes what a worker that no longer exists left on the host: one whose folder is about to go.

use types::Fault;

use super::NativeConfig;
use super::storage::Storage;
use crate::host::{CgroupTree, Identity, ask_to_end, end_all, mounts, sockets_in};

/// Ends every sandbox of that installation and folder, without a spawner. The caller holds the
/// folder's lock. Returns how many there were.
pub async fn remove_remains(config: &NativeConfig) -> Result<usize, Fault> {
    let identity: Identity = config.identity();
    let table = mounts().map_err(|e| Fault::internal("reading the mounts").caused_by(e))?;
    let tree = CgroupTree::prepare(&table, &identity);
    let by_socket = tree.is_absent();
    let dir = &config.sandboxes_dir;
    let mut found = if by_socket { sockets_in(dir) } else { tree.sandboxes() };
    for id in &found {
        let groups = tree.sandbox(id);
        let ended = match by_socket {
            true => ask_to_end(&dir.join(id.as_str())).await,
            false => end_all(groups.clone(), None, false).await,
        };
        ended.map_err(|e| Fault::unavailable("its processes do not end").caused_by(e))?;
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
