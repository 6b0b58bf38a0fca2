//! `ps`: the commands of a sandbox.

use client::api::Exec;
use serde_json::json;

use super::client;
use crate::cli::{Global, Ps};
use crate::failure::Failure;
use crate::output;

/// Characters of a command in the table.
const SHOWN: usize = 60;

pub async fn run(global: &Global, args: Ps) -> Result<(), Failure> {
    let mut execs = client(global)?.execs(&args.id).await?;
    if !args.all {
        execs.retain(|e| matches!(e.state.as_str(), "running" | "starting"));
    }
    if args.format.json {
        return Ok(output::json(&json!(execs))?);
    }
    let rows: Vec<Vec<String>> = execs.iter().map(row).collect();
    Ok(output::table(&["EXEC", "STATE", "TTY", "USER", "STARTED", "COMMAND"], &rows)?)
}

fn row(exec: &Exec) -> Vec<String> {
    let state = match (exec.exit_code, &exec.signal) {
        (Some(_), Some(signal)) => format!("killed ({signal})"),
        (Some(code), None) => format!("exited ({code})"),
        (None, _) => exec.state.clone(),
    };
    let mut command: String = exec.command.chars().take(SHOWN).collect();
    if command.len() < exec.command.len() {
        command.push('…');
    }
    let started = exec.started_at.unwrap_or(exec.created_at);
    [
        exec.exec_id.clone(),
        state,
        if exec.tty { "yes" } else { "" }.to_owned(),
        exec.user.clone().unwrap_or_default(),
        started.to_string(),
        command,
    ]
    .iter()
    .map(|cell| output::tame(cell))
    .collect()
}
