//! Grows the store before it is full.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use super::file::MIB;
use super::layers::Layers;
use super::mounted::{Mounted, Room};

/// A writer at 1 GB a second fills less than half of `HEADROOM` in that time; the rest is for the
/// time that growing takes.
const PAUSE: Duration = Duration::from_millis(200);
/// While nothing is on it. The first sandbox ends it.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
const HEADROOM: u64 = 512 * MIB;
const SMALLEST_STEP: u64 = 512 * MIB;
/// Of what is given neither to content nor to the records of it. Content takes what it finds there:
/// without a rest the records have no room while content still has, and no file can be made.
const UNALLOCATED: std::ops::RangeInclusive<u64> = 256 * MIB..=2048 * MIB;
/// Less than this left at its end is worth a word.
const NEARLY_FULL: u64 = 64 * MIB;

/// The size it should have now; `None`: it is large enough.
fn wanted(room: Room, max: u64) -> Option<u64> {
    let spare = (room.size / 8).clamp(*UNALLOCATED.start(), *UNALLOCATED.end());
    let full = room.free < HEADROOM.max(room.size / 4) || room.unallocated < spare;
    let to = (room.size + SMALLEST_STEP.max(room.size / 2)).min(max);
    (full && to > room.size).then_some(to)
}

pub(super) struct Grower(JoinHandle<()>);

impl Grower {
    pub fn start(mounted: Arc<Mounted>, layers: Arc<Layers>) -> Self {
        Self(tokio::spawn(watch(mounted, layers)))
    }

    pub fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch(mounted: Arc<Mounted>, layers: Arc<Layers>) {
    let mut said = false;
    loop {
        let (store, on_it) = (mounted.clone(), layers.clone());
        let looked = spawn_blocking(move || (look(&store), on_it.in_use())).await;
        let (looked, busy) = looked.unwrap_or((Ok(Outcome::Enough), true));
        match looked {
            Ok(Outcome::Enough) => said = false,
            Ok(Outcome::Grown(bytes)) => {
                tracing::info!(size_mb = bytes / MIB, "the disk store has grown");
                // It may have been filled meanwhile.
                continue;
            }
            Ok(Outcome::AtItsEnd) if !said => {
                said = true;
                tracing::warn!(
                    "the disk store is nearly full and can't grow: sandboxes will be told that \
                     their disk is full"
                );
            }
            Ok(Outcome::AtItsEnd) => {}
            Err(error) if !said => {
                said = true;
                tracing::error!(%error, "the disk store can't grow");
            }
            Err(_) => {}
        }
        if busy {
            tokio::time::sleep(PAUSE).await;
        } else {
            let _ = tokio::time::timeout(IDLE_PAUSE, layers.added.notified()).await;
        }
    }
}

enum Outcome {
    Enough,
    Grown(u64),
    AtItsEnd,
}

fn look(mounted: &Mounted) -> std::io::Result<Outcome> {
    let room = mounted.room()?;
    let Some(to) = wanted(room, mounted.max()) else {
        let full = room.free < NEARLY_FULL;
        return Ok(if full { Outcome::AtItsEnd } else { Outcome::Enough });
    };
    let size = mounted.grow(to)?;
    Ok(if size > room.size { Outcome::Grown(size) } else { Outcome::AtItsEnd })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_in_steps_and_stops_at_the_limit() {
        let room =
            |size, free| Room { size: size * MIB, free: free * MIB, unallocated: free * MIB };
        assert_eq!(wanted(room(1024, 800), 8192 * MIB), None);
        assert_eq!(wanted(room(512, 400), 8192 * MIB), Some(1024 * MIB));
        assert_eq!(wanted(room(4096, 900), 8192 * MIB), Some(6144 * MIB));
        assert_eq!(wanted(room(6144, 900), 8192 * MIB), Some(8192 * MIB));
        assert_eq!(wanted(room(8192, 1), 8192 * MIB), None);
        // All of it belongs to content, which has gone.
        let taken = Room { unallocated: 0, ..room(2048, 2000) };
        assert_eq!(wanted(taken, 8192 * MIB), Some(3072 * MIB));
    }
}
