//! `list`.

use serde_json::json;

use super::client;
use crate::cli::{Format, Global};
use crate::failure::Failure;
use crate::output::{self, tame};

pub async fn run(global: &Global, format: Format) -> Result<(), Failure> {
    let sandboxes = client(global)?.list().await?;
    if format.json {
        output::json(&json!(sandboxes))?;
        return Ok(());
    }
    if sandboxes.is_empty() {
        output::line("no sandboxes")?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = sandboxes
        .iter()
        .map(|s| {
            let (created, expires) = (clock_time(s.created_at), clock_time(s.expires_at));
            let text = [&s.id, &s.state, &s.provider, &s.image].map(|t| tame(t));
            text.into_iter().chain([created, expires]).collect()
        })
        .collect();
    output::table(&["ID", "STATE", "PROVIDER", "IMAGE", "CREATED", "EXPIRES"], &rows)?;
    Ok(())
}

/// Hours, minutes and seconds, UTC.
fn clock_time(at: types::Timestamp) -> String {
    at.whole_seconds().to_string().chars().skip(11).take(8).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_short() {
        let at = types::Timestamp::parse("2026-02-01T10:20:30.5+02:00").unwrap();
        assert_eq!(super::clock_time(at), "08:20:30");
    }
}
