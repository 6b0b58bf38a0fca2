//! `ps`: the commands of a sandbox, and the history of them.

use client::api::Exec;
use serde_json::json;

use super::client;
use crate::cli::{Global, Ps};
use crate::failure::Failure;
use crate::output;

/// Characters of a command in the table.
const SHOWN: usize = 60;
/// Commands asked for at once.
const PAGE: usize = 1000;

pub async fn run(global: &Global, args: Ps) -> Result<(), Failure> {
    let client = client(global)?;
    let state = if args.all { "" } else { "running" };
    let (mut execs, mut next) = (Vec::new(), Some(String::new()));
    while let Some(cursor) = next.take().filter(|_| execs.len() < args.last) {
        let limit = (args.last - execs.len()).min(PAGE).to_string();
        let query = [("state", state), ("limit", &limit), ("cursor", &cursor)];
        let (page, further) = client.execs_page(&args.id, &query).await?;
        execs.extend(page);
        next = further;
    }
    if args.format.json {
        return Ok(output::json(&json!(execs))?);
    }
    let rows: Vec<Vec<String>> = execs.iter().map(row).collect();
    let head = ["EXEC", "STATE", "KIND", "TTY", "OWNER", "USER", "STARTED", "TOOK", "COMMAND"];
    Ok(output::table(&head, &rows)?)
}

fn row(exec: &Exec) -> Vec<String> {
    let state = match (exec.exit_code, &exec.signal) {
        (Some(_), _) if exec.timed_out => "timed out".to_owned(),
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
        exec.kind.clone(),
        if exec.tty { "yes" } else { "" }.to_owned(),
        exec.owner_id.clone().unwrap_or_default(),
        exec.user.clone().unwrap_or_default(),
        started.to_string(),
        exec.duration.clone().unwrap_or_default(),
        command,
    ]
    .iter()
    .map(|cell| output::tame(cell))
    .collect()
}
