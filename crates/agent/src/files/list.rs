//! The entries of a directory.

use std::ffi::CString;
use std::vec::IntoIter;

use protocol::agent::{Body, Event, FileEntry};
use rustix::fs::{AtFlags, FileType, OFlags, statat};

use super::entry::{entry, file_type, look};
use super::path::display;
use super::scan::Scan;
use super::{Port, Slice, Step, Tree};
use crate::error::{Outcome, fail, on_path};
use crate::outbox::json_len;

/// A larger directory is refused: its names are held to be sorted.
const MAX_ENTRIES: usize = 100_000;
/// JSON bytes of one event; a frame holds 64 KiB.
const EVENT: usize = 48 * 1024;
/// What an entry takes beside its path.
const ENTRY: usize = 128;

pub(crate) struct ListJob {
    scan: Scan,
    /// As asked for, which leads to the same place whatever the links on the way.
    asked: String,
    /// As shown.
    path: String,
    names: Vec<CString>,
    sorted: Option<IntoIter<CString>>,
    batch: Vec<FileEntry>,
    size: usize,
}

impl ListJob {
    pub(crate) fn start(tree: &Tree, path: &str) -> Outcome<Self> {
        let absolute = tree.absolute(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let dir = tree.open(&absolute, flags).map_err(|e| on_path(e, path))?;
        Ok(Self {
            scan: Scan { dir },
            path: display(&absolute),
            asked: absolute,
            names: Vec::new(),
            sorted: None,
            batch: Vec::new(),
            size: 0,
        })
    }

    pub(super) fn step(&mut self, tree: &Tree, port: &mut Port<'_>, slice: &Slice) -> Step {
        match self.proceed(tree, port, slice) {
            Ok(step) => step,
            Err(error) => Step::Done(Err(error)),
        }
    }

    fn proceed(&mut self, tree: &Tree, port: &mut Port<'_>, slice: &Slice) -> Outcome<Step> {
        while self.sorted.is_none() {
            self.collect()?;
            if slice.is_over() {
                return Ok(Step::Again);
            }
        }
        loop {
            if !port.has_room() {
                return Ok(Step::Wait);
            }
            let Some(name) = self.sorted.as_mut().and_then(Iterator::next) else { break };
            self.add(tree, &name, port);
            if slice.is_over() {
                return Ok(Step::Again);
            }
        }
        self.send(port);
        Ok(Step::Done(Ok(Body::Done)))
    }

    fn collect(&mut self) -> Outcome<()> {
        let names = &mut self.names;
        let more =
            self.scan.next(|name, _| names.push(name)).map_err(|e| on_path(e, &self.path))?;
        if self.names.len() > MAX_ENTRIES {
            let text =
                format!("{}: more than {MAX_ENTRIES} entries", crate::error::shown(&self.path));
            return Err(fail(protocol::agent::AgentErrorCode::TooLarge, text));
        }
        if !more {
            let mut names = std::mem::take(&mut self.names);
            names.sort_unstable();
            self.sorted = Some(names.into_iter());
        }
        Ok(())
    }

    fn add(&mut self, tree: &Tree, name: &CString, port: &mut Port<'_>) {
        let Ok(mut stat) = statat(&self.scan.dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return; // gone since it was listed
        };
        let slash = if self.path == "/" { "" } else { "/" };
        let path = format!("{}{slash}{}", self.path, name.to_string_lossy());
        if file_type(&stat) == FileType::Symlink
            && let Ok(name) = name.to_str()
            // By name: a link in a directory that moves meanwhile may be described itself.
            && let Ok(target) = look(tree, &format!("{}/{name}", self.asked))
        {
            stat = target;
        }
        let size = json_len(&path) + ENTRY;
        if self.size + size > EVENT {
            self.send(port);
        }
        self.size += size;
        // Not through `entry`'s clean-up of the path: names are taken as they are.
        self.batch.push(FileEntry { path, ..entry("/", &stat) });
    }

    fn send(&mut self, port: &mut Port<'_>) {
        if !self.batch.is_empty() {
            port.event(&Event::Entries { entries: std::mem::take(&mut self.batch) });
            self.size = 0;
        }
    }
}
