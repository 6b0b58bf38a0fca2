//! A worker in memory that fails, hangs, waits and dies on demand.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use protocol::worker::{
    AttachOrder, BoxFuture, ByteStream, ExecControl, ExecEvent, ExecExit, ExecOrder, ExecStream,
    FileOp, FileReply, ImageOp, ImageReply, LeaseToken, ProviderReport, SandboxFact, SpawnOrder,
    Spawned, StatsReport, Stdin, WarmOrder, WarmPoolReport, WorkerLink,
};
use tokio::sync::Semaphore;
use types::{EndedReason, ErrorCode, ExecId, Fault, SandboxId, SandboxState, Timestamp};

#[derive(Debug, Clone)]
pub enum Act {
    Fail(ErrorCode),
    /// Does the work and then says that it failed, as a lost answer would.
    FailAfter(ErrorCode),
    Hang,
    /// Does the work and never answers.
    HangAfter,
    /// Waits for a permit first.
    Wait(Arc<Semaphore>),
    Panic,
}

/// What a command does.
pub enum Script {
    /// These events, then the end of the stream.
    Events(Vec<Result<ExecEvent, Fault>>),
    /// These events, then silence.
    Silence(Vec<Result<ExecEvent, Fault>>),
}

#[derive(Default)]
pub struct FakeWorker {
    state: Mutex<State>,
    pub cancelled: Arc<Mutex<u32>>,
}

#[derive(Default)]
pub struct State {
    pub sandboxes: BTreeMap<SandboxId, SandboxFact>,
    pub acts: HashMap<&'static str, VecDeque<Act>>,
    pub always: HashMap<&'static str, Act>,
    pub calls: Vec<(&'static str, Option<SandboxId>)>,
    pub reasons: Vec<(SandboxId, EndedReason)>,
    pub leases: Vec<LeaseToken>,
    pub orders: Vec<ExecOrder>,
    pub scripts: VecDeque<Script>,
    pub providers: Vec<ProviderReport>,
    pub images: Vec<ImageOp>,
    pub most_live: usize,
    /// What waits in its pool.
    pub warm: VecDeque<SandboxId>,
    pub warm_orders: Vec<WarmOrder>,
}

impl FakeWorker {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn next(&self, op: &'static str, act: Act) {
        self.state().acts.entry(op).or_default().push_back(act);
    }

    pub fn always(&self, op: &'static str, act: Act) {
        self.state().always.insert(op, act);
    }

    pub fn heal(&self) {
        let mut state = self.state();
        state.acts.clear();
        state.always.clear();
    }

    pub fn calls(&self, op: &str) -> usize {
        self.state().calls.iter().filter(|(o, _)| *o == op).count()
    }

    pub fn hold(&self, fact: SandboxFact) {
        self.state().sandboxes.insert(fact.sandbox_id.clone(), fact);
    }

    pub fn holds(&self, id: &SandboxId) -> bool {
        self.state().sandboxes.contains_key(id)
    }

    pub fn script(&self, script: Script) {
        self.state().scripts.push_back(script);
    }

    async fn call<T>(
        &self,
        op: &'static str,
        id: Option<SandboxId>,
        work: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let act = {
            let mut state = self.state();
            state.calls.push((op, id));
            let next = state.acts.get_mut(op).and_then(VecDeque::pop_front);
            next.or_else(|| state.always.get(op).cloned())
        };
        tokio::task::yield_now().await;
        let told = |code| Fault::new(code, format!("{op} was told to fail"));
        match act {
            Some(Act::Fail(code)) => Err(told(code)),
            Some(Act::FailAfter(code)) => {
                work(&mut self.state())?;
                Err(told(code))
            }
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::HangAfter) => {
                work(&mut self.state())?;
                std::future::pending().await
            }
            Some(Act::Wait(gate)) => {
                gate.acquire().await.unwrap().forget();
                work(&mut self.state())
            }
            Some(Act::Panic) => panic!("{op} was told to panic"),
            None => work(&mut self.state()),
        }
    }
}

fn known(state: &State, id: &SandboxId) -> Result<(), Fault> {
    let there = state.sandboxes.contains_key(id);
    if there { Ok(()) } else { Err(Fault::not_found("the worker does not know it")) }
}

struct Cancelled(Arc<Mutex<u32>>, bool);

impl Drop for Cancelled {
    fn drop(&mut self) {
        if !self.1 {
            *self.0.lock().unwrap() += 1;
        }
    }
}

impl WorkerLink for FakeWorker {
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Spawned, Fault>> {
        Box::pin(async move {
            let id = order.sandbox_id.clone();
            self.call("spawn", Some(id), move |state| {
                let fact = SandboxFact {
                    sandbox_id: order.sandbox_id.clone(),
                    provider: order.provider,
                    state: SandboxState::Running,
                    reason: None,
                    generation: order.lease.generation,
                    expires_at: order.expires_at,
                };
                state.leases.push(order.lease);
                state.sandboxes.insert(order.sandbox_id, fact);
                state.most_live = state.most_live.max(state.sandboxes.len());
                Ok(Spawned { runtime_id: Some("rt-1".to_owned()) })
            })
            .await
        })
    }

    fn take_warm(&self, order: WarmOrder) -> BoxFuture<'_, Result<Option<SandboxId>, Fault>> {
        Box::pin(async move {
            self.call("take_warm", None, move |state| {
                state.warm_orders.push(order.clone());
                let Some(id) = state.warm.pop_front() else { return Ok(None) };
                let fact = SandboxFact {
                    sandbox_id: id.clone(),
                    provider: order.provider,
                    state: SandboxState::Running,
                    reason: None,
                    generation: order.generation,
                    expires_at: order.expires_at,
                };
                state.sandboxes.insert(id.clone(), fact);
                Ok(Some(id))
            })
            .await
        })
    }

    fn return_warm(&self, id: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.call("return_warm", Some(id.clone()), move |state| {
                state.sandboxes.remove(&id);
                state.warm.push_front(id);
                Ok(())
            })
            .await
        })
    }

    fn warm_pools(&self) -> BoxFuture<'_, Result<Vec<WarmPoolReport>, Fault>> {
        Box::pin(self.call("warm_pools", None, |_| Ok(Vec::new())))
    }

    fn destroy(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        reason: EndedReason,
        _grace: Option<Duration>,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.call("destroy", Some(id.clone()), move |state| {
                state.leases.push(lease);
                state.sandboxes.remove(&id);
                state.reasons.push((id, reason));
                Ok(())
            })
            .await
        })
    }

    fn status(&self, id: SandboxId) -> BoxFuture<'_, Result<Option<SandboxFact>, Fault>> {
        Box::pin(async move {
            let asked = id.clone();
            self.call("status", Some(id), move |s| Ok(s.sandboxes.get(&asked).cloned())).await
        })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<SandboxFact>, Fault>> {
        Box::pin(self.call("inventory", None, |s| Ok(s.sandboxes.values().cloned().collect())))
    }

    fn extend(
        &self,
        id: SandboxId,
        lease: LeaseToken,
        expires_at: Timestamp,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.call("extend", Some(id.clone()), move |state| {
                known(state, &id)?;
                state.leases.push(lease);
                state.sandboxes.get_mut(&id).unwrap().expires_at = expires_at;
                Ok(())
            })
            .await
        })
    }

    fn stats(&self, id: SandboxId) -> BoxFuture<'_, Result<StatsReport, Fault>> {
        Box::pin(self.call("stats", Some(id), |_| Ok(StatsReport::default())))
    }

    fn exec(&self, order: ExecOrder, _: Stdin) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(async move {
            let id = order.sandbox_id.clone();
            let cancelled = self.cancelled.clone();
            self.call("exec", Some(id), move |state| {
                state.orders.push(order);
                let script = state.scripts.pop_front().unwrap_or(Script::Events(Vec::new()));
                let (events, silent) = match script {
                    Script::Events(events) => (events, false),
                    Script::Silence(events) => (events, true),
                };
                let guard = Cancelled(cancelled, false);
                let queue = (VecDeque::from(events), guard);
                let stream =
                    futures_util::stream::unfold(queue, move |(mut queue, mut guard)| async move {
                        if queue.is_empty() && silent {
                            std::future::pending::<()>().await;
                        }
                        let event = queue.pop_front();
                        guard.1 = !silent && queue.is_empty();
                        event.map(|e| (e, (queue, guard)))
                    });
                Ok(stream.boxed() as ExecStream)
            })
            .await
        })
    }

    fn start(&self, order: ExecOrder, _: Stdin) -> BoxFuture<'_, Result<(), Fault>> {
        let id = order.sandbox_id.clone();
        Box::pin(self.call("start", Some(id), move |state| {
            state.orders.push(order);
            Ok(())
        }))
    }

    fn attach(&self, order: AttachOrder) -> BoxFuture<'_, Result<ExecStream, Fault>> {
        Box::pin(self.call("attach", Some(order.sandbox_id), move |state| {
            match state.scripts.pop_front() {
                Some(Script::Events(events)) => {
                    Ok(futures_util::stream::iter(events).boxed() as ExecStream)
                }
                Some(Script::Silence(_)) | None => Err(Fault::not_found("no such command")),
            }
        }))
    }

    fn exec_input(
        &self,
        id: SandboxId,
        _: ExecId,
        _: ByteStream,
        _: bool,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.call("exec_input", Some(id), |_| Ok(())))
    }

    fn exec_control(
        &self,
        id: SandboxId,
        _: ExecId,
        _: ExecControl,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.call("exec_control", Some(id), |_| Ok(())))
    }

    fn exec_wait(&self, id: SandboxId, _: ExecId) -> BoxFuture<'_, Result<ExecExit, Fault>> {
        Box::pin(async move {
            self.call("exec_wait", Some(id), |_| Ok(())).await?;
            std::future::pending().await
        })
    }

    fn files(&self, id: SandboxId, _op: FileOp) -> BoxFuture<'_, Result<FileReply, Fault>> {
        Box::pin(self.call("files", Some(id), |_| Ok(FileReply::Done)))
    }

    fn logs(&self, id: SandboxId, lines: u32) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(self.call("logs", Some(id), move |_| Ok(vec![format!("{lines} lines")])))
    }

    fn providers(&self, _fresh: bool) -> BoxFuture<'_, Result<Vec<ProviderReport>, Fault>> {
        Box::pin(self.call("providers", None, |s| Ok(s.providers.clone())))
    }

    fn images(&self, op: ImageOp) -> BoxFuture<'_, Result<ImageReply, Fault>> {
        Box::pin(self.call("images", None, move |s| {
            s.images.push(op);
            Ok(ImageReply::Pruned(Default::default()))
        }))
    }
}
