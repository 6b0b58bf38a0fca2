//! Ends sandboxes whose time is up: one ordered set for all, one task.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use types::SandboxId;
use types::clock::BootTime;

use crate::core::Core;

/// The longest sleep. Timers of the runtime stand still while the host is suspended, boot time does
/// not: a look every half second keeps the promise of two seconds after a resume.
const TICK: Duration = Duration::from_millis(500);
/// Sandboxes that are ended at the same time.
const AT_ONCE: usize = 32;

/// Who ends when.
#[derive(Default)]
pub(crate) struct Ttl {
    queue: Mutex<Queue>,
    sooner: Notify,
}

#[derive(Default)]
struct Queue {
    order: BTreeSet<(BootTime, SandboxId)>,
    by_id: HashMap<SandboxId, BootTime>,
}

impl Ttl {
    /// Sets or moves an end.
    pub fn set(&self, id: &SandboxId, deadline: BootTime) {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(before) = queue.by_id.insert(id.clone(), deadline) {
            queue.order.remove(&(before, id.clone()));
        }
        queue.order.insert((deadline, id.clone()));
        let first = queue.order.first().is_some_and(|(_, first)| first == id);
        drop(queue);
        if first {
            self.sooner.notify_one();
        }
    }

    pub fn remove(&self, id: &SandboxId) {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(deadline) = queue.by_id.remove(id) {
            queue.order.remove(&(deadline, id.clone()));
        }
    }

    /// Takes out one whose time is up, else says when the next one's is.
    fn due(&self, now: BootTime) -> Result<SandboxId, Option<BootTime>> {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        match queue.order.first() {
            Some((deadline, _)) if *deadline <= now => {
                let (_, id) = queue.order.pop_first().expect("it was just seen");
                queue.by_id.remove(&id);
                Ok(id)
            }
            next => Err(next.map(|(deadline, _)| *deadline)),
        }
    }
}

/// Runs until the worker stops.
pub(crate) async fn run(core: Arc<Core>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let now = core.clock.boot();
        match core.ttl.due(now) {
            Ok(id) => {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let Some(sandbox) = core.sandboxes.get(&id) else { continue };
                let core_ = Arc::clone(&core);
                core.tasks.spawn(async move {
                    core_.last_words(&sandbox).await;
                    core_.expire(&sandbox).await;
                    drop(slot);
                });
            }
            Err(next) => {
                let pause = next.map(|deadline| deadline.since(now).min(TICK));
                tokio::select! {
                    () = core.stop.cancelled() => return,
                    () = core.ttl.sooner.notified() => {}
                    () = tokio::time::sleep(pause.unwrap_or(TICK)), if pause.is_some() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> SandboxId {
        SandboxId::from_random([n; 20])
    }

    #[test]
    fn the_order_is_that_of_the_latest_deadlines() {
        let ttl = Ttl::default();
        let at = BootTime::from_nanos;
        ttl.set(&id(1), at(10));
        ttl.set(&id(2), at(5));
        ttl.set(&id(2), at(20));
        ttl.set(&id(3), at(1));
        ttl.remove(&id(3));
        assert_eq!(ttl.due(at(9)), Err(Some(at(10))));
        assert_eq!(ttl.due(at(20)), Ok(id(1)));
        assert_eq!(ttl.due(at(20)), Ok(id(2)));
        assert_eq!(ttl.due(at(20)), Err(None));
    }
}
