//! Facts that nobody asked for, kept until control has taken them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::worker::{SandboxEnded, SandboxFact};
use tokio::sync::Notify;
use types::{SandboxId, SandboxState, Timestamp};

use crate::core::{Backoff, Core};

/// Facts in one report.
const BATCH: usize = 256;
/// Facts that are kept. A control plane that was away for more than this asks for the inventory.
const MAX: usize = 100_000;
/// A report is a few rows; one that takes longer is repeated.
const DEADLINE: Duration = Duration::from_secs(30);

/// One fact per sandbox: the latest.
#[derive(Default)]
pub(crate) struct Outbox {
    facts: Mutex<BTreeMap<SandboxId, SandboxEnded>>,
    more: Notify,
}

impl Outbox {
    pub fn put(&self, fact: SandboxEnded) {
        let mut facts = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        if facts.len() >= MAX && !facts.contains_key(&fact.sandbox_id) {
            drop(facts);
            tracing::warn!(sandbox = %fact.sandbox_id, "control is away: a fact is dropped");
            return;
        }
        facts.insert(fact.sandbox_id.clone(), fact);
        drop(facts);
        self.more.notify_one();
    }

    /// A sandbox that is gone, as long as control does not know.
    pub fn gone(&self, id: &SandboxId) -> Option<SandboxFact> {
        let facts = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        facts.get(id).filter(|f| f.removed).map(fact)
    }

    /// All of those.
    pub fn all_gone(&self) -> Vec<SandboxFact> {
        let facts = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        facts.values().filter(|f| f.removed).map(fact).collect()
    }

    fn batch(&self) -> Vec<SandboxEnded> {
        let facts = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        facts.values().take(BATCH).cloned().collect()
    }

    /// Removes what was told, unless something newer came meanwhile.
    fn told(&self, batch: &[SandboxEnded]) {
        let mut facts = self.facts.lock().unwrap_or_else(|e| e.into_inner());
        for fact in batch {
            if facts.get(&fact.sandbox_id) == Some(fact) {
                facts.remove(&fact.sandbox_id);
            }
        }
    }
}

/// What a look at the worker shows of it. Nothing else of it is remembered.
fn fact(ended: &SandboxEnded) -> SandboxFact {
    SandboxFact {
        sandbox_id: ended.sandbox_id.clone(),
        provider: String::new(),
        state: SandboxState::Destroyed,
        reason: Some(ended.reason),
        generation: ended.generation,
        expires_at: Timestamp::from_unix_nanos(0),
    }
}

/// Tells control, again and again until it answers. Runs until the worker stops.
pub(crate) async fn run(core: Arc<Core>) {
    let fresh = || Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut backoff = fresh();
    loop {
        let batch = core.outbox.batch();
        if batch.is_empty() {
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = core.outbox.more.notified() => continue,
            }
        }
        let answer = tokio::select! {
            () = core.stop.cancelled() => return,
            answer = tokio::time::timeout(DEADLINE, core.control.report(batch.clone())) => answer,
        };
        match answer {
            Ok(Ok(())) => {
                core.outbox.told(&batch);
                backoff = fresh();
            }
            failed => {
                let error = failed.ok().and_then(Result::err);
                tracing::debug!(error = ?error.map(|e| e.message), "report failed");
                if !core.pause(backoff.next(&*core.clock)).await {
                    return;
                }
            }
        }
    }
}
