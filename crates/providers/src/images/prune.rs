//! Removing images that nobody needs: what is to go is said, what is in use stays.

use std::collections::BTreeMap;

use protocol::worker::{Prune, Pruned};
use types::{ErrorCode, Fault};

use super::manifest::Manifest;
use super::store::ImageStore;

impl ImageStore {
    /// Removes what may go and is not in use.
    pub async fn prune(&self, what: Prune) -> Result<Pruned, Fault> {
        self.blocking(move |store| store.prune_now(&what)).await
    }

    fn prune_now(&self, what: &Prune) -> Result<Pruned, Fault> {
        let now = self.options().clock.wall();
        let mut images = {
            let _lock = self.root().lock_shared()?;
            let infos =
                self.manifests()?.iter().map(|m| self.info(m)).collect::<Result<Vec<_>, _>>();
            infos?
        };
        images.sort_by_key(|info| info.last_used);
        let mut pruned = Pruned::default();
        for info in images {
            let old = what.unused_for.is_some_and(|most| now.since(info.last_used) >= most);
            let over = match what.keep_bytes {
                Some(most) => self.bytes()? > most,
                None => false,
            };
            if !(what.all || old || over || (what.nameless && info.names.is_empty())) {
                continue;
            }
            let before = self.bytes()?;
            match self.remove_now(&info.digest) {
                Ok(()) => {
                    pruned.freed_bytes += before.saturating_sub(self.bytes()?);
                    pruned.removed.push(info);
                }
                // In use; or somebody else removed it.
                Err(fault)
                    if matches!(fault.code, ErrorCode::Conflict | ErrorCode::ImageNotFound) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(pruned)
    }

    /// The size of all layers, each counted once.
    fn bytes(&self) -> Result<u64, Fault> {
        let manifests: Vec<Manifest> = self.manifests()?;
        let layers: BTreeMap<&str, u64> = manifests
            .iter()
            .flat_map(|m| m.layers.iter().map(|l| (l.id.as_str(), l.size_bytes)))
            .collect();
        Ok(layers.values().sum())
    }
}
