//! The store as providers and commands see it: names in, prepared images out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use types::clock::{SharedClock, SystemClock};
use types::{ErrorCode, Fault, Timestamp};

use super::builtin::Builtin;
use super::fault::io as store_io;
use super::limits::Limits;
use super::locks::Hold;
use super::manifest::{ImageInfo, Layer, Manifest, short};
use super::pull::Pulls;
use super::reference::{ImageName, digest_file, ref_file, ref_name};
use super::registry::{Patience, Policy, Registry};
use super::root::{Root, Staging, names_in};
use crate::PreparedImage;

/// Names whose resolution is remembered; beyond it all are looked up anew.
const MOST_KNOWN: usize = 1024;
/// One alias may name another, but not for ever.
const MOST_ALIASES_DEEP: usize = 8;
/// That an image is in use is written down this often at most, in nanoseconds: 60 s.
const USE_NOTED: u64 = 60_000_000_000;

/// What a store is opened with, beside its place.
#[derive(Clone)]
pub struct Options {
    pub clock: SharedClock,
    pub limits: Limits,
    /// The machine that the image `host` shows.
    pub host: PathBuf,
    /// When a sandbox's image is looked for at a registry.
    pub pull: PullPolicy,
    /// Where we may connect; empty: any public registry.
    pub registries: Vec<Registry>,
    /// Docker's own file, for what opens registries.
    pub docker_config: Option<PathBuf>,
    pub patience: Patience,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// What is not here.
    Missing,
    #[default]
    Never,
    /// Each time, since a name may mean another image by now.
    Always,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            limits: Limits::default(),
            host: PathBuf::from("/"),
            pull: PullPolicy::default(),
            registries: Vec::new(),
            docker_config: None,
            patience: Patience::default(),
        }
    }
}

/// The images of one data directory. Cheap to clone; several may be open on one folder, in this
/// process or others.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

pub(super) struct Inner {
    root: Root,
    options: Options,
    /// As written in the configuration.
    aliases: BTreeMap<String, String>,
    /// In their one form, chains followed.
    meanings: BTreeMap<ImageName, ImageName>,
    builtin: Builtin,
    known: Mutex<HashMap<String, Known>>,
    registries: Policy,
    pulls: Pulls,
}

/// A name resolved before, and what has to be as it was for that to hold.
#[derive(Clone)]
enum Known {
    Host,
    /// The file that says it, what it said, and what that meant.
    Stored {
        says: PathBuf,
        said: Option<String>,
        image: Arc<PreparedImage>,
        /// When that it is in use was last written down: boot time.
        noted: Arc<AtomicU64>,
    },
}

impl ImageStore {
    /// Opens the store at `dir`, making it if it is not there. `aliases` lets names mean others.
    pub fn open(dir: PathBuf, aliases: BTreeMap<String, String>) -> Result<Self, Fault> {
        Self::open_with(dir, aliases, Options::default())
    }

    pub fn open_with(
        dir: PathBuf,
        aliases: BTreeMap<String, String>,
        options: Options,
    ) -> Result<Self, Fault> {
        let meanings = meanings(&aliases)?;
        let root = Root::open(dir)?;
        let builtin = Builtin::open(&root)?;
        let (known, pulls) = (Mutex::default(), Pulls::default());
        let registries = Policy::new(&options.registries)?;
        let inner = Inner { root, options, aliases, meanings, builtin, known, registries, pulls };
        let store = Self(Arc::new(inner));
        store.sweep_aside();
        Ok(store)
    }

    /// Resolves a name to an image that can be used at once, and pulls it first if that is wanted.
    /// Cheap for a name asked before: one small file is read again, to see that the name still
    /// means the same.
    pub async fn prepare(&self, name: &str) -> Result<PreparedImage, Fault> {
        let policy = self.options().pull;
        if policy == PullPolicy::Always {
            let (asked, meant) = self.meant(name)?;
            // A digest means the same for ever.
            if matches!(&meant, ImageName::Reference { digest: None, .. }) {
                self.pull_for_use(meant.clone(), missing(&asked, &meant)).await?;
            }
        }
        match self.local(name).await {
            Err(fault) if fault.code == ErrorCode::ImageNotFound && policy != PullPolicy::Never => {
                let (_, meant) = self.meant(name)?;
                if !matches!(meant, ImageName::Reference { .. }) {
                    return Err(fault);
                }
                self.pull_for_use(meant, fault).await?;
                self.local(name).await
            }
            other => other,
        }
    }

    /// As [`ImageStore::prepare`], but fetches nothing: `None` says that it would have to. Where a
    /// registry is asked about each use, it is asked about what was used before.
    pub async fn prepared(&self, name: &str) -> Option<PreparedImage> {
        match self.options().pull {
            PullPolicy::Always => {
                self.prepared_before(name)?;
                self.prepare(name).await.ok()
            }
            PullPolicy::Missing | PullPolicy::Never => self.local(name).await.ok(),
        }
    }

    /// What is stored here under a name.
    async fn local(&self, name: &str) -> Result<PreparedImage, Fault> {
        if let Some(image) = self.prepared_before(name) {
            return Ok(image);
        }
        let name = name.to_owned();
        self.blocking(move |store| store.prepare_now(&name)).await
    }

    /// A name as it was asked for and, aliases followed, as it is meant.
    fn meant(&self, name: &str) -> Result<(ImageName, ImageName), Fault> {
        let asked = ImageName::parse(name)?;
        let meant = self.0.meanings.get(&asked).unwrap_or(&asked).clone();
        Ok((asked, meant))
    }

    /// Keeps the image's layers from being removed until they are mounted. While another hold on
    /// the same layers lives, and always for `host`, it makes no system call; else three a layer,
    /// none of which waits (6 µs, where a change of threads would cost 30).
    pub async fn hold(&self, image: &PreparedImage) -> Result<Hold, Fault> {
        self.root().hold(&image.layers)
    }

    /// Where layers lie, each under its name.
    pub fn layers_dir(&self) -> &Path {
        self.root().layers()
    }

    /// The stored images, newest first. `host` is not among them: it is not stored.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, Fault> {
        self.blocking(|store| {
            let _lock = store.root().lock_shared()?;
            let mut images = Vec::new();
            for manifest in store.manifests()? {
                images.push(store.info(&manifest)?);
            }
            images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
            Ok(images)
        })
        .await
    }

    /// Names that mean others, as configured.
    pub fn aliases(&self) -> &BTreeMap<String, String> {
        &self.0.aliases
    }

    pub(super) fn root(&self) -> &Root {
        &self.0.root
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(super) fn registries(&self) -> &Policy {
        &self.0.registries
    }

    pub(super) fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    /// Does work that blocks, where it may.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            Err(e) => Err(Fault::internal("work on the image store broke off").caused_by(e)),
        }
    }

    /// The fast path. Reads a file of 64 bytes that is in memory (about 3 µs), which costs less
    /// than a change of threads would.
    fn prepared_before(&self, name: &str) -> Option<PreparedImage> {
        let known = {
            let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(name)?.clone()
        };
        match known {
            Known::Host => self.0.builtin.host_if_fresh(self.options()),
            Known::Stored { says, said, image, noted } => {
                let same = match said {
                    Some(said) => fs::read(says).ok()? == said.as_bytes(),
                    None => says.exists(),
                };
                if same {
                    self.note_use(&image, &noted);
                }
                same.then(|| PreparedImage::clone(&image))
            }
        }
    }

    /// Writes down that the image is in use, once in a while: retention goes by it.
    fn note_use(&self, image: &PreparedImage, noted: &AtomicU64) {
        let now = self.options().clock.boot().nanos();
        if now.saturating_sub(noted.load(Ordering::Relaxed)) < USE_NOTED {
            return;
        }
        noted.store(now, Ordering::Relaxed);
        let hex = image.resolved.trim_start_matches("sha256:");
        let path = self.root().manifests().join(format!("{hex}.json"));
        let time = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: time, last_modification: time };
        let _ = utimensat(CWD, path, &times, AtFlags::empty()); // without it, it seems older
    }

    fn prepare_now(&self, text: &str) -> Result<PreparedImage, Fault> {
        let (asked, meant) = self.meant(text)?;
        let (known, image) = match &meant {
            ImageName::Host => (Known::Host, self.0.builtin.host(self.root(), self.options())?),
            ImageName::Digest(hex) | ImageName::Reference { digest: Some(hex), .. } => {
                let _lock = self.root().lock_shared()?;
                // Ours, or a registry's.
                let said = read_file(&self.root().refs().join(digest_file(hex)))?;
                let own = said.as_ref().unwrap_or(hex);
                let image = Arc::new(self.stored(own)?.ok_or_else(|| missing(&asked, &meant))?);
                let says = self.root().manifests().join(format!("{own}.json"));
                let known = self.stored_as(says, None, &image);
                (known, PreparedImage::clone(&image))
            }
            ImageName::Reference { name, digest: None } => {
                let _lock = self.root().lock_shared()?;
                let said = read_ref(self.root(), name)?.ok_or_else(|| missing(&asked, &meant))?;
                let image = Arc::new(self.stored(&said)?.ok_or_else(|| missing(&asked, &meant))?);
                let says = self.root().refs().join(ref_file(name));
                let known = self.stored_as(says, Some(said), &image);
                (known, PreparedImage::clone(&image))
            }
        };
        let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_KNOWN {
            all.clear();
        }
        all.insert(text.to_owned(), known);
        Ok(image)
    }

    fn stored_as(&self, says: PathBuf, said: Option<String>, image: &Arc<PreparedImage>) -> Known {
        let noted = Arc::default();
        self.note_use(image, &noted);
        Known::Stored { says, said, image: Arc::clone(image), noted }
    }

    /// An image by its digest. Under the shared lock, so that it is there as a whole or not at all.
    fn stored(&self, digest: &str) -> Result<Option<PreparedImage>, Fault> {
        let Some(manifest) = Manifest::read(self.root(), digest)? else { return Ok(None) };
        let mut layers: Vec<String> = manifest.layers.iter().map(Layer::short).collect();
        if !layers.iter().all(|short| self.root().layer(short).is_dir()) {
            return Err(Fault::internal("the image's files are gone from the store"));
        }
        layers.push(self.0.builtin.base());
        Ok(Some(PreparedImage {
            resolved: format!("sha256:{digest}"),
            layers,
            binds: Vec::new(),
            env: manifest.config.env,
            workdir: manifest.config.workdir,
            user: manifest.config.user,
        }))
    }

    pub(super) fn digests(&self) -> Result<Vec<String>, Fault> {
        let names = names_in(&self.root().manifests())?;
        Ok(names.iter().filter_map(|n| n.strip_suffix(".json")).map(str::to_owned).collect())
    }

    pub(super) fn manifests(&self) -> Result<Vec<Manifest>, Fault> {
        let digests = self.digests()?;
        digests.iter().filter_map(|d| Manifest::read(self.root(), d).transpose()).collect()
    }

    /// Names that mean this digest, sorted.
    pub(super) fn names_of(&self, digest: &str) -> Result<Vec<String>, Fault> {
        let files = self.refs_to(digest)?;
        Ok(files.iter().filter(|file| !file.starts_with('@')).map(|f| ref_name(f)).collect())
    }

    /// Digests that registries know this image by.
    fn known_as(&self, digest: &str) -> Result<Vec<String>, Fault> {
        let files = self.refs_to(digest)?;
        let digests = files.iter().filter_map(|file| file.strip_prefix('@'));
        Ok(digests.map(|hex| format!("sha256:{hex}")).collect())
    }

    /// The files under `refs/` that say this digest, sorted.
    pub(super) fn refs_to(&self, digest: &str) -> Result<Vec<String>, Fault> {
        let mut files = names_in(&self.root().refs())?;
        let says = |file: &String| fs::read(self.root().refs().join(file)).unwrap_or_default();
        files.retain(|file| says(file) == digest.as_bytes());
        Ok(files)
    }

    /// Layers that this process made itself and still shows.
    pub(super) fn builtin_layers(&self) -> Vec<String> {
        self.0.builtin.layers(self.root())
    }

    /// Lets a staged tree appear as the layer of this id; true if it was there. Under the
    /// exclusive lock.
    pub(super) fn place_layer(&self, staging: &Staging, id: &str) -> Result<bool, Fault> {
        place_layer(self.root(), staging, id, id)
    }

    /// The same for a layer that several images may have: what is known of it lies beside it.
    pub(super) fn place_recorded(&self, staging: &Staging, layer: &Layer) -> Result<bool, Fault> {
        let Layer { id, size_bytes, entries } = layer;
        place_layer(self.root(), staging, id, &format!("{id} {size_bytes} {entries}"))
    }

    /// An image as people are told of it.
    pub(super) fn info(&self, manifest: &Manifest) -> Result<ImageInfo, Fault> {
        let digest = manifest.digest();
        let mut info = manifest.info(self.names_of(&digest)?, self.known_as(&digest)?);
        if let Some(used) = last_used(self.root(), &digest) {
            info.last_used = used;
        }
        Ok(info)
    }
}

/// `record` begins with the id.
pub(super) fn place_layer(
    root: &Root,
    staging: &Staging,
    id: &str,
    record: &str,
) -> Result<bool, Fault> {
    let failed = store_io("storing the image failed");
    let short = short(id);
    let (layer, lock) = (root.layer(&short), root.layer_lock(&short));
    if layer.exists() {
        // Names are 100 bits of the id; two contents of one name would be an attack.
        return match fs::read_to_string(&lock) {
            Ok(there) if !there.is_empty() && there.split(' ').next() != Some(id) => {
                Err(Fault::internal("another layer has the same short name"))
            }
            _ => Ok(true),
        };
    }
    if !lock.exists() {
        staging.place_file(record.as_bytes(), &lock)?;
    }
    fs::rename(staging.tree()?.0, layer).map_err(failed)?;
    Ok(false)
}

pub(super) fn read_ref(root: &Root, name: &str) -> Result<Option<String>, Fault> {
    read_file(&root.refs().join(ref_file(name)))
}

pub(super) fn read_file(path: &Path) -> Result<Option<String>, Fault> {
    match fs::read_to_string(path) {
        Ok(digest) => Ok(Some(digest)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(store_io("reading the image store failed")(e)),
    }
}

/// When an image was last used: its manifest's own time, which each use renews.
fn last_used(root: &Root, digest: &str) -> Option<Timestamp> {
    let meta = fs::metadata(root.manifests().join(format!("{digest}.json"))).ok()?;
    let since = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_unix_nanos(since.as_nanos() as i128))
}

fn missing(asked: &ImageName, meant: &ImageName) -> Fault {
    let (alias, named) = if asked == meant {
        (String::new(), format!("'{asked}'"))
    } else {
        (format!(" (which images.aliases lets '{asked}' mean)"), format!("'{meant}'"))
    };
    let import = match meant {
        ImageName::Reference { name, digest: None } => name.clone(),
        _ => "NAME".to_owned(),
    };
    Fault::new(
        ErrorCode::ImageNotFound,
        format!(
            "the image {named}{alias} is not here: pull it (`stacyvm image pull {import}`), import \
             it (`stacyvm image import PATH --tag {import}`), let its name mean another image (`images.aliases` in the configuration), \
             or use the image 'host', this machine's own programs"
        ),
    )
}

/// Checks the aliases and follows their chains.
fn meanings(aliases: &BTreeMap<String, String>) -> Result<BTreeMap<ImageName, ImageName>, Fault> {
    let wrong = |name: &str, why: &str| {
        Fault::bad_request(format!("images.aliases: the alias '{name}' {why}"))
    };
    let mut direct = BTreeMap::new();
    for (name, meant) in aliases {
        let parse = |text: &str| {
            ImageName::parse(text).map_err(|e| wrong(name, &format!("can't be used: {e}")))
        };
        direct.insert(parse(name)?, (name, parse(meant)?));
    }
    let mut meanings = BTreeMap::new();
    for (from, (name, meant)) in &direct {
        let mut end = meant;
        for _ in 0..MOST_ALIASES_DEEP {
            match direct.get(end) {
                Some((_, next)) if end != from => end = next,
                _ => break,
            }
        }
        // A name that means itself is no alias; one that ends elsewhere in a circle is wrong.
        if direct.get(end).is_some_and(|(_, next)| next != end) {
            return Err(wrong(name, "never ends at an image"));
        }
        meanings.insert(from.clone(), end.clone());
    }
    Ok(meanings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn aliases_are_normalised_and_followed() {
        let m = meanings(&aliases(&[("alpine", "py"), ("py:latest", "host")])).unwrap();
        assert_eq!(m[&ImageName::parse("alpine:latest").unwrap()], ImageName::Host);
    }

    #[test]
    fn circles_and_nonsense_are_refused() {
        assert!(meanings(&aliases(&[("a", "b"), ("b", "a")])).is_err());
        assert!(meanings(&aliases(&[("c", "a"), ("a", "b"), ("b", "a")])).is_err());
        assert!(meanings(&aliases(&[("a", "No Such")])).is_err());
        assert!(meanings(&aliases(&[("a", "a")])).is_ok());
    }
}
