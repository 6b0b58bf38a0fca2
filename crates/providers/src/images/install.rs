//! Puts an image of several layers into the store: each layer once, whoever else wants it, then the
//! image as a whole.
//!
//! Layers are unpacked side by side, undermost first. One that leans on those below waits for them
//! when it has to look; since each waits only for lower ones, nobody waits in a circle.

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use types::{Fault, failpoint};

use super::fault::errno;
use super::input::ArchiveInput;
use super::locks::LayerLock;
use super::manifest::{Config, ImageInfo, Layer, Manifest, short};
use super::oci::unusable;
use super::publish;
use super::root::open_dir;
use super::store::ImageStore;
use super::unpack::unpack_layer;

/// Layers of one image that are unpacked at once.
const AT_ONCE: usize = 3;
/// How often a wait looks whether it was given up.
const LOOK: Duration = Duration::from_millis(50);

/// An image to be put together.
pub(super) struct Recipe {
    pub config: Config,
    /// sha256 of each layer without its compression, undermost first.
    pub diff_ids: Vec<String>,
    /// Names it gets.
    pub names: Vec<String>,
    /// Digests that registries know it by.
    pub digests: Vec<String>,
    pub source: String,
    pub notes: Vec<String>,
}

/// Where the bytes of layers come from.
pub(super) trait LayerSource: Send + Sync {
    /// Opens a layer, undermost first. May block, as may reading.
    fn open(&self, layer: usize) -> Result<Box<dyn Read + Send>, Fault>;

    /// Told of each layer that is in the store, whether it was read or was there.
    fn have(&self, _layer: usize) {}
}

/// Brings the image in. Blocks. When `stop` is cancelled it ends soon and leaves nothing.
pub(super) fn install(
    store: &ImageStore,
    recipe: Recipe,
    source: Arc<dyn LayerSource>,
    stop: &CancellationToken,
) -> Result<ImageInfo, Fault> {
    let work = Arc::new(Work {
        store: store.clone(),
        keys: keys(&recipe.diff_ids),
        diff_ids: recipe.diff_ids.clone(),
        source,
        stop: stop.child_token(),
        slots: Mutex::new(recipe.diff_ids.iter().map(|_| Slot::Open).collect()),
        changed: Condvar::new(),
        next: AtomicUsize::new(0),
        spent: Arc::default(),
        fault: Mutex::default(),
    });
    std::thread::scope(|scope| {
        for _ in 0..recipe.diff_ids.len().min(AT_ONCE) {
            scope.spawn(|| Arc::clone(&work).run());
        }
    });
    let fault = work.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(fault) = fault {
        // Its whole layers belong to no image: they go, unless somebody else holds them.
        drop(work);
        store.sweep_orphans()?;
        return Err(fault);
    }
    let mut kept = Vec::new();
    for slot in work.slots().drain(..) {
        match slot {
            Slot::Kept(one) => kept.push(one),
            Slot::Open | Slot::Failed => return Err(given_up()),
        }
    }
    let limits = &store.options().limits;
    if kept.iter().map(|k| k.layer.entries).sum::<u64>() > limits.entries {
        return Err(unusable("it holds more files than an image may"));
    }
    failpoint::hit("pull.layers");
    let layers = kept.iter().rev().map(|k| k.layer.clone()).collect();
    let manifest =
        Manifest::of_layers(recipe.config, layers, store.options().clock.wall(), recipe.source);
    let mut info = publish::publish(store, manifest, &recipe.names, &recipe.digests)?;
    info.notes = recipe.notes;
    info.existed = kept.iter().all(|k| k.existed);
    Ok(info)
}

/// What a layer may be called: by its content alone, or with all that lies below it.
struct Keys {
    pure: String,
    leaning: String,
}

fn keys(diff_ids: &[String]) -> Vec<Keys> {
    let hash = |text: String| data_encoding::HEXLOWER.encode(&Sha256::digest(text));
    let mut below = String::new();
    let mut keys = Vec::new();
    for id in diff_ids {
        let leaning = hash(format!("stacyvm layer 1\n{id}\non {below}\n"));
        keys.push(Keys {
            pure: hash(format!("stacyvm layer 1\n{id}\n")),
            leaning: leaning.clone(),
        });
        below = leaning;
    }
    keys
}

struct Work {
    store: ImageStore,
    keys: Vec<Keys>,
    diff_ids: Vec<String>,
    source: Arc<dyn LayerSource>,
    stop: CancellationToken,
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
    next: AtomicUsize,
    spent: Arc<AtomicU64>,
    /// The first that went wrong.
    fault: Mutex<Option<Fault>>,
}

enum Slot {
    Open,
    Kept(Kept),
    Failed,
}

/// A layer in the store that nobody removes.
#[derive(Clone)]
struct Kept {
    layer: Layer,
    existed: bool,
    _lock: Arc<LayerLock>,
}

impl Work {
    fn run(self: Arc<Self>) {
        // Should this thread panic, nobody waits for what it was making.
        let stop_if_broken = self.stop.clone().drop_guard();
        loop {
            let layer = self.next.fetch_add(1, Ordering::Relaxed);
            if layer >= self.diff_ids.len() {
                stop_if_broken.disarm();
                return;
            }
            let done = match self.one(layer) {
                Ok(kept) => {
                    self.source.have(layer);
                    Slot::Kept(kept)
                }
                Err(fault) => {
                    let mut first = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(fault);
                    self.stop.cancel();
                    Slot::Failed
                }
            };
            self.slots()[layer] = done;
            self.changed.notify_all();
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(self: &Arc<Self>, layer: usize) -> Result<Kept, Fault> {
        if self.stop.is_cancelled() {
            return Err(given_up());
        }
        if let Some(kept) = self.there(layer)? {
            return Ok(kept);
        }
        let root = self.store.root();
        let making = short(&self.keys[layer].leaning);
        let _making =
            root.lock_making(&making, || self.stop.is_cancelled())?.ok_or_else(given_up)?;
        // Somebody may have made it while we waited.
        if let Some(kept) = self.there(layer)? {
            return Ok(kept);
        }
        self.make(layer)
    }

    /// The layer, if it is in the store under one of its names.
    fn there(&self, layer: usize) -> Result<Option<Kept>, Fault> {
        let root = self.store.root();
        for id in [&self.keys[layer].pure, &self.keys[layer].leaning] {
            // Gone, or going: then it is made anew.
            let Ok(lock) = root.hold_layer(&short(id)) else { continue };
            if let Some(layer) = Layer::recorded(root, id)? {
                return Ok(Some(Kept { layer, existed: true, _lock: lock }));
            }
        }
        Ok(None)
    }

    fn make(self: &Arc<Self>, layer: usize) -> Result<Kept, Fault> {
        let (root, limits) = (self.store.root(), &self.store.options().limits);
        let staging = root.stage()?;
        let (path, tree) = staging.tree()?;
        let from = self.source.open(layer)?;
        let mut input = ArchiveInput::open_one_of(from, limits, Arc::clone(&self.spent))?;
        let work = Arc::clone(self);
        let below = Box::new(move || work.below(layer));
        let summary = unpack_layer(&mut input, tree, limits, below)?;
        if input.into_id() != self.diff_ids[layer] {
            return Err(unusable("a layer of it does not have the digest it should have"));
        }
        failpoint::hit("pull.unpacked");
        let dir = open_dir(&path).map_err(errno("writing the image failed"))?;
        rustix::fs::syncfs(&dir).map_err(errno("writing the image failed"))?;
        let keys = &self.keys[layer];
        let id = if summary.leaned { &keys.leaning } else { &keys.pure };
        let layer =
            Layer { id: id.clone(), size_bytes: summary.size_bytes, entries: summary.entries };
        let _store = root.lock_exclusive()?;
        let existed = self.store.place_recorded(&staging, &layer)?;
        failpoint::hit("pull.placed");
        // Held before the store is let go, so that no sweep comes between.
        let lock = root.hold_layer(&short(id))?;
        Ok(Kept { layer, existed, _lock: lock })
    }

    /// The trees below a layer, topmost first, once they are there.
    fn below(&self, layer: usize) -> Result<Vec<std::os::fd::OwnedFd>, Fault> {
        let mut slots = self.slots();
        loop {
            if self.stop.is_cancelled() || slots[..layer].iter().any(|s| matches!(s, Slot::Failed))
            {
                return Err(given_up());
            }
            let kept = slots[..layer].iter().map(|slot| match slot {
                Slot::Kept(kept) => Some(kept.layer.short()),
                Slot::Open | Slot::Failed => None,
            });
            if let Some(names) = kept.rev().collect::<Option<Vec<_>>>() {
                drop(slots);
                let failed = "reading the layers of the image failed";
                let open = |name: &String| open_dir(&self.store.root().layer(name));
                return names.iter().map(open).collect::<Result<_, _>>().map_err(errno(failed));
            }
            let waited = self.changed.wait_timeout(slots, LOOK);
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Layer {
    /// What is recorded beside a layer that was placed.
    fn recorded(root: &super::root::Root, id: &str) -> Result<Option<Self>, Fault> {
        let Ok(text) = fs::read_to_string(root.layer_lock(&short(id))) else { return Ok(None) };
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(id) {
            return Err(Fault::internal("another layer has the same short name"));
        }
        let mut number = || words.next().and_then(|word| word.parse().ok());
        Ok(match (number(), number()) {
            (Some(size_bytes), Some(entries)) => {
                Some(Self { id: id.to_owned(), size_bytes, entries })
            }
            _ => None,
        })
    }
}

pub(super) fn given_up() -> Fault {
    Fault::unavailable("the image was given up")
}
