//! Claims ranges of host uids, so that two servers on one host never share one.
//!
//! Ids from [`FIRST_UID`] upwards are cut into blocks of 64 ranges of 65536. A block belongs to
//! whoever's name is in its file, while that one holds a lock on it; after a crash its owner finds
//! it again by that name. A block whose lock is free and whose ids no process uses may be taken.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use protocol::spawner::UidRanges;
use rustix::fs::{FlockOperation, flock};

use super::Identity;
use super::process::uids;

/// Far above the ids of people, services, subuid tables and other products' defaults.
const FIRST_UID: u32 = 0x1000_0000;
const RANGES_PER_BLOCK: u32 = 64;
const IDS_PER_RANGE: u32 = 65536;
/// What fits below the highest id, which means "none".
const BLOCKS: u32 = (u32::MAX - FIRST_UID) / (RANGES_PER_BLOCK * IDS_PER_RANGE);

/// Host-wide, gone after a boot, as the processes are.
pub(crate) const DEFAULT_CLAIMS_DIR: &str = "/run/stacyvm/uid-blocks";

/// The blocks of this server. Its locks live as long as this does; its files until `give_back`.
#[derive(Debug)]
pub(crate) struct Claims {
    dir: PathBuf,
    blocks: Range<u32>,
    _locks: Vec<File>,
}

impl Claims {
    /// Takes this identity's blocks again, or `wanted` new ones side by side. Reads files and
    /// /proc: not for the async threads.
    pub fn claim(dir: &Path, identity: &Identity, wanted: u32) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        // One at a time looks for room; the kernel lets go of it whatever happens.
        let gate = open_file(&dir.join("lock"))?;
        flock(&gate, FlockOperation::LockExclusive)?;
        let owned = owned_blocks(dir, identity)?;
        if !owned.is_empty() {
            return Self::take(dir, owned, identity);
        }
        let used = UsedIds::now();
        let wanted = wanted.clamp(1, BLOCKS);
        let mut start = 0;
        while start + wanted <= BLOCKS {
            let run = start..start + wanted;
            match run.clone().find(|n| !is_free(dir, *n, &used)) {
                None => return Self::take(dir, run, identity),
                Some(taken) => start = taken + 1,
            }
        }
        Err(io::Error::other("every range of user ids is taken by another server on this host"))
    }

    fn take(dir: &Path, blocks: Range<u32>, identity: &Identity) -> io::Result<Self> {
        let mut locks = Vec::new();
        for n in blocks.clone() {
            let mut file = open_file(&dir.join(n.to_string()))?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| io::Error::other("another process of this server holds its ids"))?;
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(identity.name().as_bytes())?;
            locks.push(file);
        }
        Ok(Self { dir: dir.to_owned(), blocks, _locks: locks })
    }

    pub fn ranges(&self) -> UidRanges {
        UidRanges {
            first: first_uid(self.blocks.start),
            count: (self.blocks.end - self.blocks.start) * RANGES_PER_BLOCK,
        }
    }

    /// Gives the blocks back, unless a process still has one of their ids.
    pub fn give_back(self) {
        let used = UsedIds::now();
        let Ok(gate) = open_file(&self.dir.join("lock")) else { return };
        if flock(&gate, FlockOperation::LockExclusive).is_err() || used.any_in(&self.blocks) {
            return;
        }
        for n in self.blocks.clone() {
            let _ = std::fs::remove_file(self.dir.join(n.to_string()));
        }
    }
}

fn first_uid(block: u32) -> u32 {
    FIRST_UID + block * RANGES_PER_BLOCK * IDS_PER_RANGE
}

fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The blocks that bear our name, from the lowest on as far as they lie side by side: slots are
/// counted from the first one, so it must stay the same while sandboxes live.
fn owned_blocks(dir: &Path, identity: &Identity) -> io::Result<Range<u32>> {
    let mut owned = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
        let Some(number) = number.filter(|n| *n < BLOCKS) else { continue };
        if content(&entry.path()).is_some_and(|name| name == identity.name()) {
            owned.push(number);
        }
    }
    owned.sort_unstable();
    let Some(first) = owned.first().copied() else { return Ok(0..0) };
    let together = (first..).zip(&owned).take_while(|(want, have)| want == *have).count();
    Ok(first..first + u32::try_from(together).unwrap_or(1))
}

fn content(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(256).read_to_string(&mut text).ok()?;
    Some(text)
}

fn is_free(dir: &Path, block: u32, used: &UsedIds) -> bool {
    if used.any_in(&(block..block + 1)) {
        return false;
    }
    match File::open(dir.join(block.to_string())) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// The real and effective uids of all processes that are in our part of the ids.
struct UsedIds(Vec<u32>);

impl UsedIds {
    fn now() -> Self {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
                ids.extend(uids(pid));
            }
        }
        ids.retain(|id| *id >= FIRST_UID);
        Self(ids)
    }

    fn any_in(&self, blocks: &Range<u32>) -> bool {
        let last = first_uid(blocks.end - 1) + (RANGES_PER_BLOCK * IDS_PER_RANGE - 1);
        self.0.iter().any(|id| (first_uid(blocks.start)..=last).contains(id))
    }
}

/// Whether this process may hand out host uids at all: root, with every id mapped to itself.
pub(crate) fn has_full_uid_map() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let full = map.lines().any(|l| {
        let numbers: Vec<u32> = l.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        matches!(numbers[..], [0, 0, u32::MAX])
    });
    full && rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::new(name, Path::new("/nowhere"), "")
    }

    #[test]
    fn two_servers_never_share_and_a_restart_finds_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let a = Claims::claim(dir.path(), &identity("a"), 3).unwrap();
        let b = Claims::claim(dir.path(), &identity("b"), 2).unwrap();
        let (ra, rb) = (a.ranges(), b.ranges());
        // Where they begin depends on what runs on this host.
        assert!(ra.first >= FIRST_UID && ra.count == 192 && rb.count == 128, "{ra:?} {rb:?}");
        let end = |r: UidRanges| r.first + r.count * IDS_PER_RANGE;
        assert!(end(ra) <= rb.first || end(rb) <= ra.first, "{ra:?} {rb:?}");
        assert!(Claims::claim(dir.path(), &identity("a"), 3).is_err(), "a lives");
        drop(a); // as a crash does: the file stays, the lock goes
        let again = Claims::claim(dir.path(), &identity("a"), 9).unwrap();
        assert_eq!(again.ranges(), ra);
    }

    #[test]
    fn what_a_dead_server_left_is_taken_and_what_is_given_back_too() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Claims::claim(dir.path(), &identity("dead"), 1).unwrap();
        let (ranges, file) = (dead.ranges(), dir.path().join(dead.blocks.start.to_string()));
        drop(dead);
        let new = Claims::claim(dir.path(), &identity("new"), 1).unwrap();
        assert_eq!(new.ranges(), ranges);
        assert_eq!(content(&file).unwrap(), identity("new").name());
        new.give_back();
        assert!(!file.exists());
    }

    #[test]
    fn ids_in_use_are_seen() {
        let used = UsedIds(vec![FIRST_UID + 64 * 65536 + 7]);
        assert!(!used.any_in(&(0..1)) && used.any_in(&(1..2)) && used.any_in(&(0..4)));
        assert!(!used.any_in(&(BLOCKS - 1..BLOCKS)));
    }
}
