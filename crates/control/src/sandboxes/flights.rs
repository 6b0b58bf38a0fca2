//! The spawns of this process that are under way, by the sandbox they make: so that no task takes
//! one for abandoned, and so that others can wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use types::{ErrorCode, Fault, SandboxId};

/// How a flight ended: with a sandbox, or with the code and the words of a fault.
type End = Result<(), (ErrorCode, String)>;

#[derive(Default)]
pub(crate) struct Spawning(Mutex<HashMap<SandboxId, Flight>>);

struct Flight {
    end: watch::Receiver<Option<End>>,
    /// Somebody beside the first caller waits for it: it is not given up with that one.
    joined: bool,
}

impl Spawning {
    pub fn contains(&self, id: &SandboxId) -> bool {
        self.flights().contains_key(id)
    }

    pub(super) fn mark(self: &Arc<Self>, id: &SandboxId) -> Mark {
        let (tx, end) = watch::channel(None);
        self.flights().insert(id.clone(), Flight { end, joined: false });
        Mark { spawning: self.clone(), id: id.clone(), end: tx }
    }

    /// Waits for a spawn. `None`: this process makes no such sandbox, or the spawn was cut short.
    pub(super) async fn join(&self, id: &SandboxId) -> Option<Result<(), Fault>> {
        let mut end = {
            let mut flights = self.flights();
            let flight = flights.get_mut(id)?;
            flight.joined = true;
            flight.end.clone()
        };
        let ended = end.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(ended.map_err(|(code, words)| Fault::new(code, words)))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<SandboxId, Flight>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Held by whoever makes the sandbox, until its caller has it.
pub(super) struct Mark {
    spawning: Arc<Spawning>,
    id: SandboxId,
    end: watch::Sender<Option<End>>,
}

impl Mark {
    /// Whether others wait for it.
    pub fn is_joined(&self) -> bool {
        self.spawning.flights().get(&self.id).is_some_and(|flight| flight.joined)
    }

    pub fn tell<T>(&self, outcome: &Result<T, Fault>) {
        let end = match outcome {
            Ok(_) => Ok(()),
            Err(fault) => Err((fault.code, fault.message.clone())),
        };
        self.end.send_replace(Some(end));
    }

    /// Does this before anybody can join the flight or see it ended, unless somebody has joined.
    pub fn unless_joined(&self, give_up: impl FnOnce()) {
        let mut flights = self.spawning.flights();
        if !flights.remove(&self.id).is_some_and(|flight| flight.joined) {
            give_up();
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.spawning.flights().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::parse("sb-1").expect("it is one")
    }

    #[tokio::test]
    async fn those_who_wait_are_told_how_it_ended() {
        let spawning = Arc::new(Spawning::default());
        assert!(spawning.join(&id()).await.is_none());
        for fails in [false, true] {
            let mark = spawning.mark(&id());
            assert!(spawning.contains(&id()) && !mark.is_joined());
            let waiting = tokio::spawn({
                let spawning = Arc::clone(&spawning);
                async move { spawning.join(&id()).await }
            });
            while !mark.is_joined() {
                tokio::task::yield_now().await;
            }
            mark.tell(&if fails { Err(Fault::not_found("none")) } else { Ok(()) });
            mark.unless_joined(|| panic!("somebody waits"));
            assert!(!spawning.contains(&id()));
            assert_eq!(waiting.await.expect("it runs").expect("it is told").is_err(), fails);
        }
    }

    #[tokio::test]
    async fn a_spawn_that_is_cut_short_holds_nobody() {
        let spawning = Arc::new(Spawning::default());
        let mark = spawning.mark(&id());
        let sandbox = id();
        let waiting = spawning.join(&sandbox);
        let (ended, ()) = tokio::join!(waiting, async { drop(mark) });
        assert!(ended.is_none());
        let mut given_up = false;
        spawning.mark(&sandbox).unless_joined(|| given_up = true);
        assert!(given_up);
    }
}
