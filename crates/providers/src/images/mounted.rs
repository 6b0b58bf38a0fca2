//! Which layers are mounted by anybody: what running processes' mount tables say.
//!
//! A table names a layer, not the store it lies in (mounts made by descriptor show no path above
//! it), so a sandbox of another data directory counts if its image has the very same content. That
//! errs on the safe side: a removal is refused that could have been done.

use std::collections::HashSet;
use std::fs;

/// Those of `layers` that an overlay of some running process names. A process that goes while we
/// look, or whose table we may not read, is passed over: it is not one of ours.
pub(super) fn mounted(layers: &[String]) -> HashSet<String> {
    let mut found = HashSet::new();
    overlays(|line| {
        found.extend(layers.iter().filter(|short| line.contains(short.as_str())).cloned());
    });
    found
}

/// Whether an overlay of some running process shows exactly these layers, topmost first, over the
/// base: then a sandbox was made of this image, and not of another with the same layers and more.
pub(super) fn shown_whole(layers: &[String]) -> bool {
    let mut found = false;
    overlays(|line| {
        let lower = line.split([' ', ',']).find_map(|option| option.strip_prefix("lowerdir="));
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut shown: Vec<String> =
            lower.into_iter().flat_map(|l| l.split(':')).map(name).collect();
        shown.pop();
        found |= !layers.is_empty() && shown == layers;
    });
    found
}

/// Looks at each overlay of each running process.
fn overlays(mut look: impl FnMut(&str)) {
    let mut seen = HashSet::new();
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path();
        // Many processes share a mount namespace: look once.
        if fs::read_link(path.join("ns/mnt")).is_ok_and(|ns| !seen.insert(ns)) {
            continue;
        }
        let Ok(table) = fs::read(path.join("mountinfo")) else { continue };
        let table = String::from_utf8_lossy(&table);
        table.lines().filter(|line| line.contains(" - overlay ")).for_each(&mut look);
    }
}
