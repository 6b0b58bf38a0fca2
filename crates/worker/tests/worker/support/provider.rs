//! A provider in memory. Its sandboxes live as long as it does, whatever worker asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::worker::BoxFuture;
use providers::{
    AgentStream, CreateSpec, Liveness, PreparedImage, Provider, ProviderStats, Runtime,
};
use tokio::sync::{Semaphore, watch};
use types::clock::BootTime;
use types::{EndedReason, ErrorCode, Fault, SandboxId};

use super::agent::{Agent, Lie};

/// A step that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Prepare,
    Create,
    Connect,
    Destroy,
    Probe,
}

struct Made {
    agent: Arc<Agent>,
    dead: watch::Sender<Option<EndedReason>>,
}

pub struct FakeProvider {
    boxes: Mutex<HashMap<SandboxId, Made>>,
    /// How often each step fails from now on.
    failures: Mutex<HashMap<Step, usize>>,
    pub lie: Mutex<Lie>,
    /// Each create takes one.
    pub create_permits: Semaphore,
    prepare_permits: Semaphore,
    pub creates: AtomicUsize,
    pub connects: AtomicUsize,
    pub destroys: AtomicUsize,
    pub adopted: Mutex<Vec<SandboxId>>,
    pub swept_with: Mutex<Vec<SandboxId>>,
    pub probe_delay: Mutex<Duration>,
    pub cpu: Mutex<Duration>,
    /// Deadline of the last order, and whether it is tied.
    pub last_order: Mutex<Option<(BootTime, bool)>>,
    /// What every name means.
    pub image: Mutex<PreparedImage>,
}

impl FakeProvider {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            boxes: Mutex::default(),
            failures: Mutex::default(),
            lie: Mutex::new(Lie::None),
            create_permits: Semaphore::new(Semaphore::MAX_PERMITS),
            prepare_permits: Semaphore::new(Semaphore::MAX_PERMITS),
            creates: AtomicUsize::new(0),
            connects: AtomicUsize::new(0),
            destroys: AtomicUsize::new(0),
            adopted: Mutex::default(),
            swept_with: Mutex::default(),
            probe_delay: Mutex::default(),
            cpu: Mutex::default(),
            last_order: Mutex::default(),
            image: Mutex::default(),
        })
    }

    pub fn fail(&self, step: Step, times: usize) {
        self.failures.lock().unwrap().insert(step, times);
    }

    fn step(&self, step: Step) -> Result<(), Fault> {
        match self.failures.lock().unwrap().get_mut(&step) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(Fault::new(ErrorCode::Unavailable, format!("{step:?} was told to fail")))
            }
            _ => Ok(()),
        }
    }

    /// Makes creates wait until they are allowed one by one.
    pub fn hold_creates(&self) {
        self.create_permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Makes prepares wait for ever.
    pub fn hold_prepares(&self) {
        self.prepare_permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn has(&self, id: &SandboxId) -> bool {
        self.boxes.lock().unwrap().contains_key(id)
    }

    pub fn agent(&self, id: &SandboxId) -> Arc<Agent> {
        Arc::clone(&self.boxes.lock().unwrap()[id].agent)
    }

    pub fn ids(&self) -> Vec<SandboxId> {
        self.boxes.lock().unwrap().keys().cloned().collect()
    }

    /// Its PID 1 dies.
    pub fn kill(&self, id: &SandboxId, reason: EndedReason) {
        let boxes = self.boxes.lock().unwrap();
        boxes[id].agent.stop();
        boxes[id].dead.send_replace(Some(reason));
    }

    /// Nothing is left of it, though nobody destroyed it.
    pub fn lose(&self, id: &SandboxId) {
        if let Some(made) = self.boxes.lock().unwrap().remove(id) {
            made.agent.stop();
        }
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Vec<String> {
        vec!["exec".to_owned()]
    }

    fn config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let delay = *self.probe_delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            self.step(Step::Probe)
        })
    }

    fn prepare(&self, _image: &str) -> BoxFuture<'_, Result<PreparedImage, Fault>> {
        Box::pin(async {
            self.prepare_permits.acquire().await.unwrap().forget();
            self.step(Step::Prepare).map(|()| self.image.lock().unwrap().clone())
        })
    }

    fn prepared<'a>(&'a self, _image: &'a str) -> BoxFuture<'a, Option<PreparedImage>> {
        Box::pin(async { Some(self.image.lock().unwrap().clone()) })
    }

    fn create(&self, spec: CreateSpec) -> BoxFuture<'_, Result<Runtime, Fault>> {
        Box::pin(async move {
            self.creates.fetch_add(1, Ordering::SeqCst);
            self.create_permits.acquire().await.unwrap().forget();
            self.step(Step::Create)?;
            let agent = Agent::new(spec.id.clone(), *self.lie.lock().unwrap());
            let made = Made { agent, dead: watch::Sender::new(None) };
            self.boxes.lock().unwrap().insert(spec.id.clone(), made);
            *self.last_order.lock().unwrap() = Some((spec.deadline, spec.tied));
            Ok(Runtime { id: spec.id, dir: spec.dir, facts: serde_json::json!({ "fake": true }) })
        })
    }

    fn connect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<AgentStream, Fault>> {
        Box::pin(async {
            self.step(Step::Connect)?;
            self.connects.fetch_add(1, Ordering::SeqCst);
            let boxes = self.boxes.lock().unwrap();
            let made = boxes.get(&runtime.id).ok_or_else(|| Fault::unavailable("no agent"))?;
            if made.dead.borrow().is_some() {
                return Err(Fault::unavailable("no agent"));
            }
            Ok(made.agent.connect())
        })
    }

    fn inspect<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<Liveness, Fault>> {
        Box::pin(async {
            Ok(match self.boxes.lock().unwrap().get(&runtime.id) {
                None => Liveness::Gone,
                Some(made) => made.dead.borrow().map_or(Liveness::Alive, Liveness::Dead),
            })
        })
    }

    fn adopt<'a>(&'a self, runtime: &'a Runtime) -> BoxFuture<'a, Result<(), Fault>> {
        self.adopted.lock().unwrap().push(runtime.id.clone());
        Box::pin(std::future::ready(Ok(())))
    }

    fn wait(&self, runtime: &Runtime) -> BoxFuture<'static, EndedReason> {
        let dead = self.boxes.lock().unwrap().get(&runtime.id).map(|made| made.dead.subscribe());
        Box::pin(async {
            let Some(mut dead) = dead else { return EndedReason::Crashed };
            let reason = dead.wait_for(Option::is_some).await;
            reason.ok().and_then(|r| *r).unwrap_or(EndedReason::Crashed)
        })
    }

    fn destroy<'a>(
        &'a self,
        id: &'a SandboxId,
        _runtime: Option<&'a Runtime>,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async {
            self.destroys.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.step(Step::Destroy)?;
            self.lose(id);
            Ok(())
        })
    }

    fn stats<'a>(&'a self, _runtime: &'a Runtime) -> BoxFuture<'a, Result<ProviderStats, Fault>> {
        let cpu_usage = Some(*self.cpu.lock().unwrap());
        Box::pin(std::future::ready(Ok(ProviderStats { cpu_usage, ..Default::default() })))
    }

    fn sweep<'a>(&'a self, known: &'a [SandboxId]) -> BoxFuture<'a, Result<usize, Fault>> {
        *self.swept_with.lock().unwrap() = known.to_vec();
        Box::pin(std::future::ready(Ok(0)))
    }
}
