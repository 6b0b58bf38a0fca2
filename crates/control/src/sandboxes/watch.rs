//! What a sandbox says and uses: its console and its numbers.

use std::time::Duration;

use protocol::worker::StatsReport;
use types::Fault;

use crate::fault::within;
use crate::{Context, Control};

const READ_DEADLINE: Duration = Duration::from_secs(30);
/// More than a console keeps.
const MAX_LINES: u32 = 100_000;

impl Control {
    /// The last lines of the console.
    pub async fn logs(&self, ctx: &Context, id: &str, lines: u32) -> Result<Vec<String>, Fault> {
        let (sandbox, link) = self.0.usable(ctx, id).await?;
        let work = link.logs(sandbox.id, lines.min(MAX_LINES));
        within(READ_DEADLINE, "reading the logs", work).await
    }

    pub async fn stats(&self, ctx: &Context, id: &str) -> Result<StatsReport, Fault> {
        let (sandbox, link) = self.0.usable(ctx, id).await?;
        within(READ_DEADLINE, "reading the stats", link.stats(sandbox.id)).await
    }
}
