//! Importing what lies on this machine: a root file system, unpacked aside and then let appear; or
//! a saved image of several layers, in whatever form.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use types::{Fault, failpoint};

use super::directory;
use super::fault::{errno, io};
use super::manifest::{ImageInfo, Layer, Manifest};
use super::reference::{ImageName, ref_file};
use super::root::{Root, Staging};
use super::store::{ImageStore, Options};
use super::unpack::{Tree, Unpacked, archive_id, unpack_archive};

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Read of the source so far.
    pub bytes: u64,
    /// Of how many; not known of a directory.
    pub total_bytes: Option<u64>,
}

/// How often progress is told.
pub(super) const STEP: u64 = 4 << 20;

impl ImageStore {
    /// Makes an image of a directory or a tar (plain, gzip or zstd) on this machine: a root file
    /// system, an OCI layout, or what `docker save` wrote. The same content again is found to be
    /// there, and only named. When the future is dropped, the work stops and leaves nothing.
    pub async fn import(
        &self,
        source: &Path,
        tag: Option<&str>,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ImageInfo, Fault> {
        let naming = Naming { tag: tag.map(str::to_owned), ..Naming::default() };
        self.import_as(source, naming, progress).await
    }

    /// The same, with a say in its names.
    pub async fn import_as(
        &self,
        source: &Path,
        naming: Naming,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ImageInfo, Fault> {
        let parse = |tag: Option<String>| tag.as_deref().map(ImageName::parse_tag).transpose();
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let job = Job {
            store: self.clone(),
            source: source.to_owned(),
            tag: parse(naming.tag)?,
            otherwise: naming.otherwise,
            pick: naming.pick,
            stop,
            progress: Arc::new(progress),
        };
        self.blocking(move |_| job.run()).await
    }
}

/// What an imported image is to be called.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// This, whatever it was called before.
    pub tag: Option<String>,
    /// This, if it has no tag and brings no name of its own.
    pub otherwise: Option<String>,
    /// Of several images in one archive, the one of this name.
    pub pick: Option<String>,
}

pub(super) type Telling = Arc<dyn Fn(Progress) + Send + Sync>;

pub(super) struct Job {
    pub store: ImageStore,
    source: PathBuf,
    pub tag: Option<String>,
    pub otherwise: Option<String>,
    pub pick: Option<String>,
    pub stop: CancellationToken,
    pub progress: Telling,
}

pub(super) enum Source {
    Directory(OwnedFd),
    Archive(File),
}

impl Job {
    fn run(mut self) -> Result<ImageInfo, Fault> {
        let (source, meta) = self.open()?;
        if let Some(info) = self.saved(&source, meta.len())? {
            return Ok(info);
        }
        if self.pick.is_some() {
            return Err(Fault::bad_request("it is a root file system: there is nothing to pick"));
        }
        if self.tag.is_none() {
            self.tag = self.otherwise.as_deref().map(ImageName::parse_tag).transpose()?;
        }
        // What the same thing looked like last time. If it matches, the id alone is taken first.
        let hint = match &source {
            Source::Directory(_) => format!("directory {}:{}", meta.dev(), meta.ino()),
            Source::Archive(_) => format!("archive {}", meta.len()),
        };
        if self.seen(&hint)? {
            let id = self.id(&source, meta.len())?;
            if let Some(info) = publish_known(&self.store, &id, self.tag.as_deref())? {
                return Ok(info);
            }
        }
        let staging = self.root().stage()?;
        let (path, tree) = staging.tree()?;
        let unpacked = self.unpack(&source, meta.len(), tree)?;
        failpoint::hit("images.unpacked");
        sync(&path)?;
        publish(&self.store, &staging, unpacked, self.tag.as_deref(), hint)
    }

    pub(super) fn root(&self) -> &Root {
        self.store.root()
    }

    pub(super) fn options(&self) -> &Options {
        self.store.options()
    }

    fn open(&self) -> Result<(Source, fs::Metadata), Fault> {
        // O_NONBLOCK: opening a FIFO must not wait for a writer.
        let file =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&self.source).map_err(
                |e| {
                    match e.kind() {
                        io::ErrorKind::NotFound => {
                            Fault::bad_request("there is no such file or directory")
                        }
                        io::ErrorKind::PermissionDenied => Fault::bad_request("it may not be read"),
                        _ => Fault::bad_request("it can't be opened"),
                    }
                    .caused_by(e)
                },
            )?;
        let meta = file.metadata().map_err(io("looking at what is imported failed"))?;
        if meta.is_dir() {
            Ok((Source::Directory(file.into()), meta))
        } else if meta.is_file() {
            Ok((Source::Archive(file), meta))
        } else {
            Err(directory::neither(&self.source))
        }
    }

    fn seen(&self, hint: &str) -> Result<bool, Fault> {
        Ok(self.store.manifests()?.iter().any(|m| m.source.as_deref() == Some(hint)))
    }

    fn id(&self, source: &Source, len: u64) -> Result<String, Fault> {
        let limits = &self.options().limits;
        match source {
            Source::Archive(file) => archive_id(self.watched(file, len)?, limits),
            Source::Directory(dir) => self.walk(dir, None),
        }
    }

    fn unpack(&self, source: &Source, len: u64, into: OwnedFd) -> Result<Unpacked, Fault> {
        let limits = &self.options().limits;
        match source {
            Source::Archive(file) => unpack_archive(self.watched(file, len)?, into, limits),
            Source::Directory(dir) => {
                let mut tree = Tree::new(into, limits.clone());
                let id = self.walk(dir, Some(&mut tree))?;
                let done = tree.finish()?;
                Ok(Unpacked {
                    id,
                    size_bytes: done.size_bytes,
                    entries: done.entries,
                    notes: done.notes,
                })
            }
        }
    }

    fn walk(&self, dir: &OwnedFd, tree: Option<&mut Tree>) -> Result<String, Fault> {
        let store =
            fs::metadata(self.root().dir()).map_err(io("opening the image store failed"))?;
        let not_this = (store.dev(), store.ino());
        let mut told = 0;
        let mut tick = |bytes: u64, _: u64| {
            if bytes >= told {
                told = bytes + STEP;
                (self.progress)(Progress { bytes, total_bytes: None });
            }
            if self.stop.is_cancelled() { Err(stopped()) } else { Ok(()) }
        };
        directory::walk(dir, not_this, &self.options().limits, tree, &mut tick)
    }

    /// The file from its start.
    pub(super) fn watched<'a>(&'a self, file: &'a File, total: u64) -> Result<Watched<'a>, Fault> {
        io::Seek::rewind(&mut &*file).map_err(io("reading the archive failed"))?;
        Ok(Watched { file, job: self, bytes: 0, told: 0, total })
    }
}

/// Tells of progress, and stops when nobody waits any more.
pub(super) struct Watched<'a> {
    file: &'a File,
    job: &'a Job,
    bytes: u64,
    told: u64,
    total: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.job.stop.is_cancelled() {
            return Err(io::Error::other(stopped()));
        }
        let n = self.file.read(buf)?;
        self.bytes += n as u64;
        if self.bytes >= self.told {
            self.told = self.bytes + STEP;
            (self.job.progress)(Progress { bytes: self.bytes, total_bytes: Some(self.total) });
        }
        Ok(n)
    }
}

pub(super) fn stopped() -> Fault {
    Fault::unavailable("the import was given up")
}

/// On disk before it can be seen: a layer whose name says what it holds must hold it, also after
/// a power cut.
fn sync(tree: &Path) -> Result<(), Fault> {
    let dir = super::root::open_dir(tree).map_err(errno("writing the image failed"))?;
    rustix::fs::syncfs(&dir).map_err(errno("writing the image failed"))
}

fn publish(
    store: &ImageStore,
    staging: &Staging,
    unpacked: Unpacked,
    tag: Option<&str>,
    hint: String,
) -> Result<ImageInfo, Fault> {
    let root = store.root();
    let Unpacked { id, size_bytes, entries, notes } = unpacked;
    let layer = Layer { id, size_bytes, entries };
    let _lock = root.lock_exclusive()?;
    let existed = store.place_layer(staging, &layer.id)?;
    failpoint::hit("images.layer_placed");
    let created = store.options().clock.wall();
    let mut manifest = Manifest::new(layer, created, Some(hint));
    let digest = manifest.digest();
    if let Some(there) = Manifest::read(root, &digest)? {
        manifest.created = there.created;
    }
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    staging.place_file(&bytes, &root.manifests().join(format!("{digest}.json")))?;
    failpoint::hit("images.manifest_placed");
    name(root, staging, &digest, tag)?;
    let mut info = store.info(&manifest)?;
    info.existed = existed;
    info.notes = notes;
    Ok(info)
}

/// Names an image whose only layer has this id, if it is here.
fn publish_known(
    store: &ImageStore,
    id: &str,
    tag: Option<&str>,
) -> Result<Option<ImageInfo>, Fault> {
    let root = store.root();
    let staging = root.stage()?;
    let _lock = root.lock_exclusive()?;
    let manifests = store.manifests()?;
    let Some(manifest) = manifests.iter().find(|m| matches!(&m.layers[..], [l] if l.id == id))
    else {
        return Ok(None);
    };
    let digest = manifest.digest();
    name(root, &staging, &digest, tag)?;
    let mut info = store.info(manifest)?;
    info.existed = true;
    Ok(Some(info))
}

fn name(root: &Root, staging: &Staging, digest: &str, tag: Option<&str>) -> Result<(), Fault> {
    let Some(tag) = tag else { return Ok(()) };
    staging.place_file(digest.as_bytes(), &root.refs().join(ref_file(tag)))
}
