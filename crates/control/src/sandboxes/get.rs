//! Looking at sandboxes.

use types::{Fault, Sandbox, SandboxState};

use super::Finding;
use crate::fault::ended;
use crate::records::expired;
use crate::{Context, Control};

impl Control {
    /// One sandbox. One that ended is not found, and the message says how it ended.
    pub async fn sandbox(&self, ctx: &Context, id: &str) -> Result<Sandbox, Fault> {
        let sandbox = self.0.shown(self.0.record(ctx, id).await?);
        match sandbox.state {
            SandboxState::Destroyed => Err(ended(&sandbox)),
            SandboxState::Expired => Err(expired(&sandbox)),
            SandboxState::Creating
            | SandboxState::Running
            | SandboxState::Unhealthy
            | SandboxState::Destroying
            | SandboxState::Error => Ok(sandbox),
        }
    }

    /// The caller's sandboxes that are not destroyed, newest first.
    pub async fn sandboxes(&self, ctx: &Context) -> Result<Vec<Sandbox>, Fault> {
        self.find(ctx, &Finding::default(), None, None).await
    }
}
