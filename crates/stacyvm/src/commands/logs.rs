//! `logs`.

use std::io::IsTerminal;

use serde_json::json;

use super::client;
use crate::cli::{Global, Logs};
use crate::failure::Failure;
use crate::output::{self, tame};

pub async fn run(global: &Global, args: Logs) -> Result<(), Failure> {
    let lines = client(global)?.logs(&args.id, args.lines).await?;
    if args.format.json {
        output::json(&json!(lines))?;
        return Ok(());
    }
    let terminal = std::io::stdout().is_terminal();
    for line in &lines {
        // What a sandbox wrote must not move the cursor of whoever looks at it.
        if terminal {
            output::line(&tame(line))?;
        } else {
            output::line(line)?;
        }
    }
    Ok(())
}
