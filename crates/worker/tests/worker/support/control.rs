//! A control plane that remembers what it is told, and may be away.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use protocol::worker::{BoxFuture, ControlLink, Heartbeat, SandboxEnded};
use types::{Fault, SandboxId};

use super::wait_for;

#[derive(Default)]
pub struct FakeControl {
    pub away: AtomicBool,
    pub refused: AtomicUsize,
    pub beats: Mutex<Vec<Heartbeat>>,
    pub ending: Mutex<Vec<SandboxId>>,
    pub ended: Mutex<Vec<SandboxEnded>>,
}

impl FakeControl {
    fn here(&self) -> Result<(), Fault> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Fault::unavailable("away"));
        }
        Ok(())
    }

    /// All that was reported.
    pub fn reports(&self) -> Vec<SandboxEnded> {
        self.ended.lock().unwrap().clone()
    }

    /// The first report on a sandbox.
    pub async fn report_on(&self, id: &SandboxId) -> SandboxEnded {
        wait_for("a report", async || {
            self.ended.lock().unwrap().iter().find(|e| e.sandbox_id == *id).cloned()
        })
        .await
    }
}

impl ControlLink for FakeControl {
    fn heartbeat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.here()?;
            self.beats.lock().unwrap().push(beat);
            Ok(())
        })
    }

    fn ending(&self, id: SandboxId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.here()?;
            self.ending.lock().unwrap().push(id);
            Ok(())
        })
    }

    fn report(&self, ended: Vec<SandboxEnded>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.here()?;
            self.ended.lock().unwrap().extend(ended);
            Ok(())
        })
    }
}
