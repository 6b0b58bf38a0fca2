//! Finding paths by a pattern. Each directory is read once, whatever the pattern.

use std::ffi::CString;
use std::vec::IntoIter;

use protocol::agent::{AgentErrorCode, Body, Event};
use rustix::fs::{FileType, OFlags};

use super::pattern::{Pattern, States};
use super::scan::Scan;
use super::{Port, Slice, Step, Tree};
use crate::error::{Outcome, bad_request, fail};
use crate::outbox::json_len;

/// More matches are refused.
const MAX_PATHS: usize = 100_000;
/// Names of one directory that match or may lead further; they are held to be sorted.
const MAX_NAMES: usize = 100_000;
/// Directories visited: links to directories can make a small tree look endless to a pattern like
/// `*/*/*/*/*/*`.
const MAX_DIRS: usize = 500_000;
const MAX_DEPTH: usize = 512;
/// JSON bytes of one event; a frame holds 64 KiB.
const EVENT: usize = 48 * 1024;

pub(crate) struct GlobJob {
    pattern: Pattern,
    levels: Vec<Level>,
    paths: usize,
    dirs: usize,
    batch: Vec<String>,
    size: usize,
}

/// A directory on the way down.
struct Level {
    /// Without a slash at the end; empty for the root.
    path: String,
    states: States,
    stage: Stage,
}

enum Stage {
    New,
    Reading(Scan, Vec<Name>),
    Walking(IntoIter<Name>),
}

struct Name {
    text: String,
    hit: bool,
    /// What goes on below it, if it is a directory.
    next: States,
    /// The same if it is a link to one, or what it is is not known.
    through_link: States,
    kind: FileType,
}

impl GlobJob {
    pub(crate) fn start(tree: &Tree, pattern: &str) -> Outcome<Self> {
        let absolute = tree.absolute(pattern)?;
        let pattern = Pattern::parse(&absolute).map_err(bad_request)?;
        let top = Level { path: String::new(), states: pattern.start(), stage: Stage::New };
        Ok(Self { pattern, levels: vec![top], paths: 0, dirs: 0, batch: Vec::new(), size: 0 })
    }

    pub(super) fn step(&mut self, tree: &Tree, port: &mut Port<'_>, slice: &Slice) -> Step {
        loop {
            if !port.has_room() {
                return Step::Wait;
            }
            match self.once(tree, port) {
                Ok(false) => {}
                Ok(true) => {
                    self.send(port);
                    return Step::Done(Ok(Body::Done));
                }
                Err(error) => return Step::Done(Err(error)),
            }
            if slice.is_over() {
                return Step::Again;
            }
        }
    }

    /// Opens a directory, reads a piece of it, or handles one name; `true` at the end.
    fn once(&mut self, tree: &Tree, port: &mut Port<'_>) -> Outcome<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(true) };
        match &mut level.stage {
            Stage::New => {
                match open(tree, &self.pattern, level) {
                    Some(stage) => level.stage = stage,
                    None => {
                        self.levels.pop();
                    }
                }
                self.dirs += 1;
                if self.dirs > MAX_DIRS {
                    return Err(too_large("the pattern leads through too many directories"));
                }
            }
            Stage::Reading(scan, names) => {
                let (pattern, states) = (&self.pattern, level.states);
                let more = scan.next(|name, kind| names.extend(keep(pattern, states, &name, kind)));
                if names.len() > MAX_NAMES {
                    return Err(too_large("the pattern matches too many names in one directory"));
                }
                // A directory that can't be read on ends here, as one that is gone.
                if !more.unwrap_or(false) {
                    let mut names = std::mem::take(names);
                    names.sort_unstable_by(|a, b| a.text.cmp(&b.text));
                    level.stage = Stage::Walking(names.into_iter());
                }
            }
            Stage::Walking(names) => match names.next() {
                None => {
                    self.levels.pop();
                }
                Some(name) => self.visit(tree, name, port)?,
            },
        }
        Ok(false)
    }

    fn visit(&mut self, tree: &Tree, name: Name, port: &mut Port<'_>) -> Outcome<()> {
        let parent = self.levels.last().map_or("", |l| l.path.as_str());
        let path = format!("{parent}/{}", name.text);
        if name.hit && (name.kind != FileType::Unknown || tree.lexists(&path)) {
            self.found(path.clone(), port)?;
        }
        let states = match name.kind {
            FileType::Directory => name.next,
            FileType::Symlink => name.through_link,
            FileType::Unknown => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                if tree.open(&path, flags).is_ok() { name.next } else { name.through_link }
            }
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => 0,
        };
        if states != 0 && self.levels.len() < MAX_DEPTH {
            self.levels.push(Level { path, states, stage: Stage::New });
        }
        Ok(())
    }

    fn found(&mut self, path: String, port: &mut Port<'_>) -> Outcome<()> {
        self.paths += 1;
        if self.paths > MAX_PATHS {
            return Err(too_large("the pattern matches too many paths"));
        }
        let size = json_len(&path);
        if self.size + size > EVENT {
            self.send(port);
        }
        self.size += size;
        self.batch.push(path);
        Ok(())
    }

    fn send(&mut self, port: &mut Port<'_>) {
        if !self.batch.is_empty() {
            port.event(&Event::Paths { paths: std::mem::take(&mut self.batch) });
            self.size = 0;
        }
    }
}

fn too_large(text: &str) -> protocol::agent::AgentError {
    fail(AgentErrorCode::TooLarge, text)
}

/// Opens a directory to be read, unless the names in it are known. `None` if there is none.
fn open(tree: &Tree, pattern: &Pattern, level: &Level) -> Option<Stage> {
    if let Some(names) = pattern.literals(level.states) {
        let names: Vec<Name> = names
            .into_iter()
            .filter_map(|text| name(pattern, level.states, text, FileType::Unknown))
            .collect();
        return Some(Stage::Walking(names.into_iter()));
    }
    let path = if level.path.is_empty() { "/" } else { &level.path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    let dir = tree.open(path, flags).ok()?;
    Some(Stage::Reading(Scan { dir }, Vec::new()))
}

/// A name worth keeping. One that is not UTF-8 can't be said in an answer, and so is none.
fn keep(pattern: &Pattern, states: States, text: &CString, kind: FileType) -> Option<Name> {
    name(pattern, states, text.to_str().ok()?, kind)
}

fn name(pattern: &Pattern, states: States, text: &str, kind: FileType) -> Option<Name> {
    let advance = pattern.advance(states, text);
    let next = advance.next | advance.deep;
    if !advance.hit && next == 0 {
        return None;
    }
    Some(Name { text: text.to_owned(), hit: advance.hit, next, through_link: advance.next, kind })
}
