//! Importing a saved image: an OCI layout as a folder or a tar, or an archive of `docker save`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::fstatvfs;
use types::Fault;

use super::fault::{disk_full, errno, from_io, io as io_fault, reading};
use super::import::{Job, Progress, STEP, Source, Telling, stopped};
use super::input::ArchiveInput;
use super::install::{LayerSource, Recipe, install};
use super::manifest::ImageInfo;
use super::oci::{Local, looks_saved, open_archive, open_layout};
use super::reference::ImageName;
use super::root::Staging;

impl Job {
    /// Imports a saved image; `None` if the source is something else.
    pub(super) fn saved(&self, source: &Source, len: u64) -> Result<Option<ImageInfo>, Fault> {
        let pick = self.pick.as_deref();
        match source {
            Source::Directory(dir) => match open_layout(dir, pick)? {
                Some(local) => self.install(local).map(Some),
                None => Ok(None),
            },
            Source::Archive(file) => {
                let limits = &self.options().limits;
                let mut start = ArchiveInput::open(self.watched(file, len)?, limits)?;
                if !looks_saved(&mut start, limits) {
                    return Ok(None);
                }
                drop(start);
                let staging = self.root().stage()?;
                let plain = self.plain(file, len, &staging)?;
                match open_archive(Arc::new(plain), pick, limits)? {
                    Some(local) => self.install(local).map(Some),
                    None => Ok(None),
                }
            }
        }
    }

    /// The archive without compression: itself, or a copy that goes with `staging`.
    fn plain(&self, file: &File, len: u64, staging: &Staging) -> Result<File, Fault> {
        let limits = &self.options().limits;
        let mut head = [0; 4];
        let failed = "reading the archive failed";
        let n =
            std::os::unix::fs::FileExt::read_at(file, &mut head, 0).map_err(io_fault(failed))?;
        if !ArchiveInput::<File>::is_compressed(&head[..n]) {
            return file.try_clone().map_err(io_fault(failed));
        }
        let mut input = ArchiveInput::open(self.watched(file, len)?, limits)?;
        let mut copy = staging.scratch()?;
        let mut buffer = vec![0; 256 << 10];
        let mut written = 0;
        loop {
            let n = match input.read(&mut buffer) {
                Ok(0) => return Ok(copy),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(reading(e)),
            };
            if written / STEP != (written + n as u64) / STEP || written == 0 {
                let disk = fstatvfs(&copy).map_err(errno("asking for free space failed"))?;
                if disk.f_bavail.saturating_mul(disk.f_frsize) < limits.reserve_bytes {
                    return Err(disk_full());
                }
            }
            copy.write_all(&buffer[..n]).map_err(|e| from_io("writing the image failed", e))?;
            written += n as u64;
        }
    }

    fn install(&self, local: Local) -> Result<ImageInfo, Fault> {
        let mut notes = local.config.notes.clone();
        let names = match &self.tag {
            Some(tag) => vec![tag.clone()],
            None => self.own_names(&local, &mut notes)?,
        };
        let recipe = Recipe {
            config: local.config.config.clone(),
            diff_ids: local.config.diff_ids.clone(),
            names,
            digests: local.digests.clone(),
            source: "saved".to_owned(),
            notes,
        };
        let layers = Layers {
            total: local.size(),
            local,
            read: Arc::default(),
            progress: Arc::clone(&self.progress),
            stop: self.stop.clone(),
        };
        install(&self.store, recipe, Arc::new(layers), &self.stop)
    }

    /// The names it was saved under, else the one that was given for that case.
    fn own_names(&self, local: &Local, notes: &mut Vec<String>) -> Result<Vec<String>, Fault> {
        let otherwise = self.otherwise.as_deref().map(ImageName::parse_tag);
        let mut names = Vec::new();
        for name in &local.names {
            // A layout may name no more than the tag.
            let whole = match (&otherwise, name.contains([':', '/'])) {
                (Some(Ok(of)), false) => {
                    let path = of.rsplit_once(':').map_or(of.as_str(), |(path, _)| path);
                    format!("{path}:{name}")
                }
                _ => name.clone(),
            };
            match ImageName::parse_tag(&whole) {
                Ok(name) => names.push(name),
                Err(_) => notes.push("1 × name that can't be used left out".to_owned()),
            }
        }
        if names.is_empty() {
            names.extend(otherwise.transpose()?);
        }
        Ok(names)
    }
}

struct Layers {
    local: Local,
    total: u64,
    read: Arc<AtomicU64>,
    progress: Telling,
    stop: tokio_util::sync::CancellationToken,
}

impl LayerSource for Layers {
    fn open(&self, layer: usize) -> Result<Box<dyn Read + Send>, Fault> {
        let watched = Watched {
            inner: self.local.open(layer)?,
            read: Arc::clone(&self.read),
            total: (self.total > 0).then_some(self.total),
            progress: Arc::clone(&self.progress),
            stop: self.stop.clone(),
        };
        Ok(Box::new(BufReader::with_capacity(128 << 10, watched)))
    }
}

/// Tells of progress, and stops when nobody waits any more.
struct Watched {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
    total: Option<u64>,
    progress: Telling,
    stop: tokio_util::sync::CancellationToken,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(stopped()));
        }
        let n = self.inner.read(buf)?;
        let before = self.read.fetch_add(n as u64, Ordering::Relaxed);
        let bytes = before + n as u64;
        if before / STEP != bytes / STEP {
            (self.progress)(Progress { bytes, total_bytes: self.total });
        }
        Ok(n)
    }
}
