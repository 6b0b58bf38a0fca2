//! Everything about a sandbox that does not depend on how its files come about.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use protocol::spawner::SpawnSpec;
use protocol::worker::BoxFuture;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use types::clock::SharedClock;
use types::failpoint::hit;
use types::{EndedReason, Fault, SandboxId};

use super::process::ExitStatus;
use super::{
    AgentSocket, CgroupTree, Facts, Launcher, SOCKET, SandboxCgroups, Writable, boot_id, connect,
    farewell, residue,
};
use crate::{AgentStream, CreateSpec, Liveness, ProviderStats, Runtime};

/// How long PID 1 may take to be gone once it was killed, with all its namespace holds.
const END_LIMIT: Duration = Duration::from_secs(8);

pub(crate) struct Core {
    pub launcher: Launcher,
    pub cgroups: CgroupTree,
    /// A sandbox's folder is there, under its id.
    sandboxes_dir: PathBuf,
    clock: SharedClock,
    boot_id: String,
    /// Sandboxes have no PID namespace of their own.
    unconfined: bool,
    /// Made by this process and not yet destroyed: a sweep with an older list spares them.
    mine: Mutex<HashSet<SandboxId>>,
    /// Connections that wait for an agent which has just been started.
    early: Mutex<HashMap<SandboxId, OwnedFd>>,
    /// Its writing end closes when this process ends, however it ends.
    tie: (OwnedFd, OwnedFd),
}

impl Core {
    pub fn new(
        launcher: Launcher,
        cgroups: CgroupTree,
        sandboxes_dir: PathBuf,
        clock: SharedClock,
        unconfined: bool,
    ) -> Result<Self, Fault> {
        let host = |e: io::Error| Fault::unavailable("this host tells too little").caused_by(e);
        let tie = pipe_with(PipeFlags::CLOEXEC).map_err(|e| host(e.into()))?;
        let boot_id = boot_id().map_err(host)?;
        let (mine, early) = Default::default();
        Ok(Self { launcher, cgroups, sandboxes_dir, clock, boot_id, unconfined, mine, early, tie })
    }

    /// Has the spawner make it, with a socket that listens already. On failure nothing is left of
    /// processes, cgroups and socket; the writable layer is the caller's.
    pub async fn make(
        &self,
        spec: CreateSpec,
        order: SpawnSpec,
        writable: Writable,
    ) -> Result<Runtime, Fault> {
        self.mine().insert(spec.id.clone());
        let memory_limit_bytes = order.memory_bytes;
        let made = async {
            let made = spec.socket.map_or_else(|| AgentSocket::make(&spec.dir), Ok);
            let AgentSocket { listener, first } = made.map_err(|e| {
                Fault::unavailable("the agent's socket could not be made").caused_by(e)
            })?;
            hit("spawn.listening");
            self.early().insert(spec.id.clone(), first);
            let mut fds = vec![listener.as_fd()];
            if order.dies_with_fd {
                fds.push(self.tie.0.as_fd());
            }
            self.launcher.spawn(order, &fds).await
        };
        let made = match made.await {
            Ok(made) => made,
            Err(fault) => {
                if let Err(error) = self.end(&spec.id, None, &spec.dir).await {
                    tracing::warn!(%error, "a sandbox that was not made left something");
                }
                return Err(fault);
            }
        };
        let facts = Facts {
            made,
            boot_id: self.boot_id.clone(),
            writable,
            memory_limit_bytes,
            deadline_boot_nanos: spec.deadline.nanos(),
        };
        let facts = serde_json::to_value(facts)
            .map_err(|e| Fault::internal("writing down what was made").caused_by(e))?;
        Ok(Runtime { id: spec.id.clone(), dir: spec.dir.clone(), facts })
    }

    pub async fn connect(&self, runtime: &Runtime) -> Result<AgentStream, Fault> {
        let early = self.early().remove(&runtime.id).filter(|fd| !is_hung_up(fd));
        let stream = match early.map(|fd| UnixStream::from_std(fd.into())) {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(_)) | None => connect(&runtime.dir).await,
        };
        match stream {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(match self.inspect(runtime)? {
                Liveness::Alive => Fault::unavailable("the sandbox's agent does not answer"),
                Liveness::Dead(why) => Fault::dead(format!("sandbox {}", why.in_words())),
                Liveness::Gone => Fault::not_found("nothing of this sandbox is left"),
            }
            .caused_by(error)),
        }
    }

    /// Reads procfs and cgroupfs, which wait for no disk.
    pub fn inspect(&self, runtime: &Runtime) -> Result<Liveness, Fault> {
        let facts = Facts::of(runtime)?;
        let rebooted = facts.boot_id != self.boot_id;
        if !rebooted && facts.process().is_alive() {
            return Ok(Liveness::Alive);
        }
        let groups = self.cgroups.sandbox(&runtime.id);
        if !runtime.dir.join(SOCKET).exists() && (rebooted || !groups.exist()) {
            return Ok(Liveness::Gone);
        }
        if rebooted {
            return Ok(Liveness::Dead(EndedReason::HostRebooted));
        }
        Ok(Liveness::Dead(why(&groups, &facts, &self.clock, None)))
    }

    pub async fn adopt(&self, runtime: &Runtime) -> Result<(), Fault> {
        let facts = Facts::of(runtime)?;
        self.mine().insert(runtime.id.clone());
        if facts.boot_id != self.boot_id {
            return Ok(());
        }
        self.launcher.adopt(runtime.id.as_str(), facts.made.slot).await
    }

    pub fn wait(&self, runtime: &Runtime) -> BoxFuture<'static, EndedReason> {
        let facts = Facts::of(runtime);
        let groups = self.cgroups.sandbox(&runtime.id);
        let (clock, boot_id) = (self.clock.clone(), self.boot_id.clone());
        Box::pin(async move {
            let Ok(facts) = facts else { return EndedReason::Lost };
            if facts.boot_id != boot_id {
                return EndedReason::HostRebooted;
            }
            let status = match facts.process().ended().await {
                Ok(status) => status,
                Err(error) => {
                    tracing::error!(%error, "no descriptor of a sandbox can be had; looking now and then");
                    while facts.process().is_alive() {
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                    None
                }
            };
            why(&groups, &facts, &clock, status)
        })
    }

    /// Where a sandbox is whose runtime nobody remembers.
    pub fn dir_of(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes_dir.join(id.as_str())
    }

    /// Ends its processes and gives back slot, cgroups and socket.
    pub async fn end(
        &self,
        id: &SandboxId,
        facts: Option<&Facts>,
        dir: &Path,
    ) -> Result<(), Fault> {
        self.early().remove(id);
        let facts = facts.filter(|f| f.boot_id == self.boot_id);
        let groups = self.cgroups.sandbox(id);
        let ended = match facts {
            // The end of a PID namespace's first process is the end of all in it.
            Some(facts) if !self.unconfined => facts.process().kill_within(END_LIMIT).await,
            None if self.cgroups.is_absent() => farewell::ask_to_end(dir).await,
            _ => {
                let root = facts.map(Facts::process);
                let by_tree = self.unconfined && !self.cgroups.can_kill();
                residue::end_all(groups.clone(), root, by_tree).await
            }
        };
        ended.map_err(|e| Fault::unavailable("the sandbox's processes do not end").caused_by(e))?;
        hit("destroy.ended");
        self.release(id, facts.and_then(|f| f.made.slot), groups).await?;
        hit("destroy.released");
        remove_file(&dir.join(SOCKET))?;
        self.mine().remove(id);
        Ok(())
    }

    /// By the spawner; if there is none to ask, the cgroups are removed from here.
    async fn release(
        &self,
        id: &SandboxId,
        slot: Option<u32>,
        groups: SandboxCgroups,
    ) -> Result<(), Fault> {
        let Err(fault) = self.launcher.release(id.as_str(), slot).await else { return Ok(()) };
        let removed = spawn_blocking(move || groups.remove()).await.unwrap_or(false);
        if removed {
            tracing::warn!(error = %fault, "the spawner did not release a sandbox; its cgroups are gone");
            return Ok(());
        }
        Err(fault)
    }

    pub async fn stats(&self, runtime: &Runtime) -> Result<ProviderStats, Fault> {
        let facts = Facts::of(runtime)?;
        let groups = self.cgroups.sandbox(&runtime.id);
        let usage = spawn_blocking(move || groups.usage()).await;
        let usage = usage.map_err(|e| Fault::internal("reading the numbers").caused_by(e))?;
        let limited = self.launcher.facts().memory_limit;
        Ok(ProviderStats {
            cpu_usage: usage.cpu,
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: limited.then_some(facts.memory_limit_bytes),
            pids: usage.pids,
            disk_bytes: None,
            disk_limit_bytes: None,
        })
    }

    /// Ends what has cgroups of ours, or is in `others`, and is neither in `known` nor being made.
    /// Returns which those were.
    pub async fn sweep(
        &self,
        known: &[SandboxId],
        others: Vec<SandboxId>,
    ) -> Result<Vec<SandboxId>, Fault> {
        let known: HashSet<&SandboxId> = known.iter().collect();
        let (tree, dir) = (self.cgroups.clone(), self.sandboxes_dir.clone());
        let look =
            move || if tree.is_absent() { farewell::sockets_in(&dir) } else { tree.sandboxes() };
        let found = spawn_blocking(look).await;
        let mut found = found.map_err(|e| Fault::internal("looking for remains").caused_by(e))?;
        found.extend(others);
        found.retain(|id| !known.contains(id) && !self.mine().contains(id));
        for id in &found {
            tracing::warn!(sandbox = %id, "nobody claims this sandbox: it is removed");
            self.end(id, None, &self.dir_of(id)).await?;
        }
        Ok(found.into_iter().collect())
    }

    pub fn probe(&self) -> Result<(), Fault> {
        match self.launcher.is_up() {
            true => Ok(()),
            false => Err(Fault::unavailable("the spawner is not running")),
        }
    }

    /// Ends the spawner, and removes our cgroups if no sandbox has one.
    pub async fn close(&self) {
        self.launcher.stop().await;
        let tree = self.cgroups.clone();
        let removed = spawn_blocking(move || tree.remove_if_empty()).await;
        if let Err(error) = removed {
            tracing::error!(%error, "removing the cgroups");
        }
    }

    fn early(&self) -> MutexGuard<'_, HashMap<SandboxId, OwnedFd>> {
        self.early.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn mine(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.mine.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Whether the other end of a stream has gone.
fn is_hung_up(stream: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok_and(|n| n > 0)
}

/// Why PID 1 is gone, from what can still be seen.
fn why(
    groups: &SandboxCgroups,
    facts: &Facts,
    clock: &SharedClock,
    status: Option<ExitStatus>,
) -> EndedReason {
    let over = (1..=clock.boot().nanos()).contains(&facts.deadline_boot_nanos);
    let killed = status.is_none_or(ExitStatus::was_killed);
    let returned = status.is_none_or(ExitStatus::returned);
    if killed && groups.agent_was_oom_killed() {
        EndedReason::Oom
    } else if returned && over {
        EndedReason::Expired
    } else {
        EndedReason::Crashed
    }
}

fn remove_file(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Fault::internal("removing the agent's socket").caused_by(e))
        }
        _ => Ok(()),
    }
}
