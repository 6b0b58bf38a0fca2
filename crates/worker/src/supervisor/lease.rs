//! Who may change a sandbox.

use protocol::worker::LeaseToken;
use types::{ErrorCode, Fault, SandboxId};

use super::Sandbox;
use crate::core::Core;

impl Core {
    /// The lease is for this sandbox and this worker, and has not run out.
    pub(super) fn check_lease(&self, id: &SandboxId, lease: &LeaseToken) -> Result<(), Fault> {
        self.check_holder(id, lease)?;
        if lease.expires_at <= self.clock.wall() {
            return Err(conflict(format!("the lease of sandbox {id} has run out")));
        }
        Ok(())
    }

    /// As [`Core::check_lease`], whatever the time. A destroy comes when time is up, and an expired
    /// lease that nobody took is still its holder's: the generation tells whether somebody did.
    pub(super) fn check_holder(&self, id: &SandboxId, lease: &LeaseToken) -> Result<(), Fault> {
        if lease.resource_id != *id {
            return Err(conflict(format!("the lease is not for sandbox {id}")));
        }
        if lease.holder_id != self.config.id {
            return Err(conflict(format!("sandbox {id} is leased to another worker")));
        }
        Ok(())
    }
}

impl Sandbox {
    /// Nobody with a newer lease has been here.
    pub(super) fn check_generation(&self, lease: &LeaseToken) -> Result<(), Fault> {
        if lease.generation < self.generation() {
            return Err(conflict(format!("sandbox {} has a newer owner", self.id)));
        }
        Ok(())
    }
}

pub(super) fn conflict(message: String) -> Fault {
    Fault::new(ErrorCode::Conflict, message)
}
