//! What a running system occupies on the host: for comparing a busy day's evening with its morning.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::process::Process;
use crate::slate;
use crate::system::NAME;
use crate::{Running, System};

/// Layers of images are many files that no sandbox changes.
const NOT_ENTERED: &str = "images/layers";

/// Everything of one system, counted. Numbers in names are left out, so that a prepared thing
/// counts as the same as its successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeMap<String, usize>);

impl Footprint {
    pub fn of(system: &System, server: &Running) -> Self {
        let data = system.data_dir();
        let mut seen = Self(BTreeMap::new());
        for left in slate::leftovers(&data) {
            seen.add(&left.to_string(), 1);
        }
        for group in slate::groups_below(&data) {
            seen.add(&format!("control group {}", group.display()), 1);
        }
        seen.files(&data, &data);
        let server = Process::of(server.pid());
        for process in server.iter() {
            seen.process("server", process);
            for child in Process::children_of(process.pid) {
                seen.process("its child", &child);
                for mount in child.mounts().into_iter().filter(|m| !is_anothers(m, &data)) {
                    seen.add(&format!("mount in its child: {mount}"), 1);
                }
            }
        }
        seen
    }

    /// What is otherwise in `later`, a line each.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(later.0.keys()).collect();
        let count = |of: &Self, name: &String| of.0.get(name).copied().unwrap_or(0);
        let changed = names.into_iter().filter(|n| count(self, n) != count(later, n));
        changed.map(|n| format!("{n}: {} -> {}", count(self, n), count(later, n))).collect()
    }

    fn process(&mut self, whose: &str, process: &Process) {
        self.add(&format!("process: {whose}"), 1);
        for (kind, count) in process.descriptors() {
            self.add(&format!("descriptor of {whose}: {kind}"), count);
        }
    }

    fn files(&mut self, data: &Path, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(data).unwrap_or(&path).to_string_lossy().into_owned();
            self.add(&format!("file: {name}"), 1);
            let folder = entry.file_type().is_ok_and(|t| t.is_dir());
            // What prepared layers hold is the same for all.
            if folder && name != NOT_ENTERED && !name.starts_with("disk/mnt/") {
                self.files(data, &path);
            }
        }
    }

    fn add(&mut self, what: &str, count: usize) {
        *self.0.entry(without_numbers(what)).or_default() += count;
    }
}

/// Of a system that another test has: a helper that shares the host's mounts sees those as well.
fn is_anothers(mount: &str, data: &Path) -> bool {
    let tests = std::env::temp_dir().join(NAME);
    mount.starts_with(&*tests.to_string_lossy()) && !Path::new(mount).starts_with(data)
}

fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let count = |lines: &[&str]| {
            let mut seen = Footprint(BTreeMap::new());
            lines.iter().for_each(|l| seen.add(l, 1));
            seen
        };
        let before = count(&["pool.17", "pool.18", "a"]);
        assert!(before.difference(&count(&["pool.5", "a", "pool.1234"])).is_empty());
        let later = count(&["pool.1", "b"]);
        assert_eq!(before.difference(&later), ["a: 1 -> 0", "b: 0 -> 1", "pool.#: 2 -> 1"]);
    }
}
