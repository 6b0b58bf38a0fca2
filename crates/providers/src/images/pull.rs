//! Pulls from registries: one for each name, however many wait for it; none ends because somebody
//! stops waiting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::worker::{PullEvent, PullProgress};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use types::{ErrorCode, Fault, failpoint};

use super::install::{Recipe, given_up, install};
use super::manifest::{ImageInfo, Manifest};
use super::oci::{Descriptor, unusable};
use super::publish;
use super::reference::{ImageName, digest_file, tag_of};
use super::registry::{Layers, Resolved, Session};
use super::store::{ImageStore, read_file};

/// Pulls that are known at once; more are refused.
const MOST: usize = 64;
/// Of those, the ones that run; the others wait for their turn.
const RUNNING: usize = 16;
/// Layers that wait for their digest must have a size that can be believed.
const MOST_BYTES: u64 = 1 << 40;
/// How often it is told how far a pull is.
const TOLD: Duration = Duration::from_millis(200);
/// Pulls that are told to stop are waited for so long.
const CLOSE: Duration = Duration::from_secs(5);

#[derive(Clone)]
enum State {
    Running(PullProgress),
    Done(Box<ImageInfo>),
    Failed {
        code: ErrorCode,
        message: String,
        /// Whether the registry had answered at all.
        begun: bool,
    },
}

/// What a look at the registry gave.
enum Looked {
    Here(Box<ImageInfo>),
    There(Box<Found>),
}

struct Found {
    session: Arc<Session>,
    resolved: Resolved,
    names: Vec<String>,
}

/// A pull somebody waits for. Dropping it does not stop the pull.
pub struct Pull {
    state: watch::Receiver<State>,
    first: bool,
}

/// The pulls of a store.
pub(super) struct Pulls {
    jobs: Mutex<HashMap<String, watch::Receiver<State>>>,
    turns: Semaphore,
    stop: CancellationToken,
}

impl Default for Pulls {
    fn default() -> Self {
        let (jobs, turns) = (Mutex::default(), Semaphore::new(RUNNING));
        Self { jobs, turns, stop: CancellationToken::new() }
    }
}

impl Pulls {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<State>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pull {
    /// The next news; the last is `Done`.
    pub async fn next(&mut self) -> PullEvent {
        if !std::mem::take(&mut self.first) && self.state.changed().await.is_err() {
            return PullEvent::Done(Err(given_up()));
        }
        let state = self.state.borrow_and_update().clone();
        match state {
            State::Running(progress) => PullEvent::Progress(progress),
            State::Done(info) => PullEvent::Done(Ok(info)),
            State::Failed { code, message, .. } => PullEvent::Done(Err(Fault::new(code, message))),
        }
    }

    /// Waits for its end.
    pub async fn wait(mut self) -> Result<ImageInfo, Fault> {
        loop {
            if let PullEvent::Done(done) = self.next().await {
                return done.map(|info| *info);
            }
        }
    }

    fn begun(&self) -> bool {
        !matches!(&*self.state.borrow(), State::Failed { begun: false, .. })
    }
}

impl ImageStore {
    /// Starts to pull an image, or joins those who wait for it already.
    pub fn pull(&self, name: &str) -> Result<Pull, Fault> {
        match ImageName::parse(name)? {
            ImageName::Reference { name, digest } => {
                self.start(ImageName::Reference { name, digest })
            }
            ImageName::Host | ImageName::Digest(_) => {
                Err(Fault::bad_request("only an image with a name can be pulled"))
            }
        }
    }

    /// Stops all pulls, and waits a little until they have cleared up.
    pub async fn close(&self) {
        self.pulls().stop.cancel();
        let waiting: Vec<_> = self.pulls().jobs().values().cloned().collect();
        let ended = async {
            for mut state in waiting {
                let _ = state.wait_for(|s| !matches!(s, State::Running(_))).await;
            }
        };
        if tokio::time::timeout(CLOSE, ended).await.is_err() {
            tracing::warn!("a pull does not end: the next start clears up after it");
        }
    }

    /// Pulls what a sandbox is to be made of. Where it can't be had, the fault names all ways out.
    pub(super) async fn pull_for_use(&self, name: ImageName, missing: Fault) -> Result<(), Fault> {
        let pull = self.start(name)?;
        let seen = Pull { state: pull.state.clone(), first: false };
        match pull.wait().await {
            Ok(_) => Ok(()),
            Err(fault) => Err(match fault.code {
                ErrorCode::ImageNotFound | ErrorCode::Forbidden => because(missing, fault),
                ErrorCode::Unavailable if !seen.begun() => because(missing, fault),
                _ => fault,
            }),
        }
    }

    fn start(&self, name: ImageName) -> Result<Pull, Fault> {
        let key = name.to_string();
        let mut jobs = self.pulls().jobs();
        jobs.retain(|_, state| {
            state.has_changed().is_ok() && matches!(&*state.borrow(), State::Running(_))
        });
        if let Some(state) = jobs.get(&key) {
            return Ok(Pull { state: state.clone(), first: true });
        }
        if self.pulls().stop.is_cancelled() {
            return Err(given_up());
        }
        if jobs.len() >= MOST {
            return Err(Fault::new(ErrorCode::ResourceLimit, "too many images are being pulled"));
        }
        let (told, state) = watch::channel(State::Running(PullProgress::default()));
        jobs.insert(key, state.clone());
        let store = self.clone();
        tokio::spawn(async move {
            let mut begun = false;
            let done = store.pull_now(&name, &told, &mut begun).await;
            told.send_replace(match done {
                Ok(info) => State::Done(Box::new(info)),
                Err(fault) => {
                    tracing::info!(image = %name, code = %fault.code, error = %chain(&fault), "a pull failed");
                    State::Failed { code: fault.code, message: fault.message, begun }
                }
            });
        });
        Ok(Pull { state, first: true })
    }

    async fn pull_now(
        &self,
        name: &ImageName,
        told: &watch::Sender<State>,
        begun: &mut bool,
    ) -> Result<ImageInfo, Fault> {
        let stop = self.pulls().stop.child_token();
        // Whatever ends this ends the work in other threads too.
        let _stop_on_drop = stop.clone().drop_guard();
        let work = async {
            let _turn = tokio::select! {
                turn = self.pulls().turns.acquire() => turn.map_err(|_| given_up())?,
                () = stop.cancelled() => return Err(given_up()),
            };
            let looked = tokio::select! {
                looked = self.look(name, begun) => looked?,
                () = stop.cancelled() => return Err(given_up()),
            };
            match looked {
                Looked::Here(info) => Ok(*info),
                Looked::There(found) => self.fetch(*found, told, &stop).await,
            }
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(self.options().patience.whole) => stop.cancel(),
        }
        // It ends soon, and leaves nothing.
        let _ = work.await;
        Err(Fault::unavailable("pulling the image takes too long"))
    }

    /// Asks the registry what the name means now.
    async fn look(&self, name: &ImageName, begun: &mut bool) -> Result<Looked, Fault> {
        let ImageName::Reference { name, digest } = name else { return Err(given_up()) };
        let at = name.clone();
        let session = self.blocking(move |store| {
            let options = store.options();
            let docker = options.docker_config.as_deref();
            Session::new(&at, store.registries(), docker, options.patience.clone())
        });
        let session = session.await?;
        let reference = match digest {
            Some(hex) => format!("sha256:{hex}"),
            None => tag_of(name).to_owned(),
        };
        let (top, bytes) = session.top(&reference).await?;
        *begun = true;
        let names = if digest.is_some() { Vec::new() } else { vec![name.clone()] };
        let (hex, as_named) = (top.clone(), names.clone());
        if let Some(info) = self.blocking(move |store| store.again(&hex, &as_named)).await? {
            return Ok(Looked::Here(Box::new(info)));
        }
        let resolved = session.resolve(top, &bytes).await?;
        Ok(Looked::There(Box::new(Found { session, resolved, names })))
    }

    /// Brings the layers here.
    async fn fetch(
        &self,
        found: Found,
        told: &watch::Sender<State>,
        stop: &CancellationToken,
    ) -> Result<ImageInfo, Fault> {
        failpoint::hit("pull.resolved");
        let Found { session, resolved, names } = found;
        let total = total(&resolved.layers)?;
        let here: Arc<Vec<AtomicU64>> =
            Arc::new(resolved.layers.iter().map(|_| AtomicU64::new(0)).collect());
        let tell = teller(told.clone(), Arc::clone(&here), sizes(&resolved.layers), total);
        let layers = Layers {
            session,
            layers: resolved.layers,
            here,
            changed: Box::new(tell.clone()),
            runtime: tokio::runtime::Handle::current(),
            stop: stop.clone(),
        };
        let recipe = Recipe {
            config: resolved.config.config,
            diff_ids: resolved.config.diff_ids,
            names,
            digests: resolved.digests,
            source: "registry".to_owned(),
            notes: resolved.config.notes,
        };
        let stop = stop.clone();
        let install = self.blocking(move |store| install(store, recipe, Arc::new(layers), &stop));
        let mut install = std::pin::pin!(install);
        loop {
            tokio::select! {
                done = &mut install => return done.map_err(content),
                () = tokio::time::sleep(TOLD) => tell(),
            }
        }
    }

    /// An image that is here under this digest of a registry: only its names may be new.
    fn again(&self, hex: &str, names: &[String]) -> Result<Option<ImageInfo>, Fault> {
        let root = self.root();
        let staging = root.stage()?;
        let _lock = root.lock_exclusive()?;
        let Some(own) = read_file(&root.refs().join(digest_file(hex)))? else { return Ok(None) };
        let Some(manifest) = Manifest::read(root, &own)? else { return Ok(None) };
        if !manifest.layers.iter().all(|layer| root.layer(&layer.short()).is_dir()) {
            return Ok(None);
        }
        publish::name(root, &staging, &own, names)?;
        let mut info = self.info(&manifest)?;
        info.existed = true;
        Ok(Some(info))
    }
}

/// Tells how far it is, if that changed.
fn teller(
    told: watch::Sender<State>,
    here: Arc<Vec<AtomicU64>>,
    sizes: Vec<u64>,
    total_bytes: u64,
) -> impl Fn() + Clone + Send + Sync + 'static {
    move || {
        let read: Vec<u64> = here.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect();
        let progress = PullProgress {
            layers: sizes.len() as u64,
            layers_done: read.iter().zip(&sizes).filter(|(read, size)| read == size).count() as u64,
            bytes: read.iter().sum(),
            total_bytes,
        };
        told.send_if_modified(|state| match state {
            State::Running(old) if *old != progress => {
                *old = progress;
                true
            }
            _ => false,
        });
    }
}

fn sizes(layers: &[Descriptor]) -> Vec<u64> {
    layers.iter().map(|layer| layer.size).collect()
}

fn total(layers: &[Descriptor]) -> Result<u64, Fault> {
    let sum = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    sum.filter(|sum| *sum <= MOST_BYTES).ok_or_else(|| unusable("its layers are too large"))
}

/// What is wrong with the content of an image is not the caller's mistake.
fn content(fault: Fault) -> Fault {
    match fault.code {
        ErrorCode::BadRequest => unusable(&fault.message),
        _ => fault,
    }
}

fn because(missing: Fault, why: Fault) -> Fault {
    Fault { message: format!("{}; pulling it failed: {}", missing.message, why.message), ..missing }
        .caused_by(why)
}

fn chain(fault: &Fault) -> String {
    let mut text = fault.message.clone();
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
