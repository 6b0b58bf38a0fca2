//! What was measured, as Markdown.

use std::fmt::Write;
use std::path::Path;

use crate::host;

pub const BEGIN: &str = "<!-- scripts/bench: begin -->";
pub const END: &str = "<!-- scripts/bench: end -->";

/// One promise and what was seen.
pub struct Row {
    pub what: String,
    pub seen: String,
    /// What others needed for the same, and how much more that is.
    pub beside: String,
    pub aim: String,
    /// `None`: there is no aim.
    pub met: Option<bool>,
}

#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// Requests a second: the operation, then a cell for each number of connections.
    pub requests: Vec<Vec<String>>,
    pub notes: Vec<String>,
}

impl Report {
    pub fn row(&mut self, what: &str, seen: String, beside: String, aim: &str, met: Option<bool>) {
        let word = match met {
            Some(true) => "",
            Some(false) => "  MISSED",
            None => "",
        };
        eprintln!("{what}: {seen}  [{beside}]  aim {aim}{word}");
        self.rows.push(Row { what: what.to_owned(), seen, beside, aim: aim.to_owned(), met });
    }

    pub fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.notes.push(text);
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("Measured by `scripts/bench` on {}.\n", host::name());
        if !self.rows.is_empty() {
            text.push_str(
                "\n| what | measured (p50 / p99) | beside | aim | |\n|---|---|---|---|---|\n",
            );
        }
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            let Row { what, seen, beside, aim, .. } = row;
            let _ = writeln!(text, "| {what} | {seen} | {beside} | {aim} | {met} |");
        }
        if !self.requests.is_empty() {
            text.push_str(
                "\nRequests a second on the mock provider with SQLite, p50 / p99 in ms:\n\n\
                 | | 1 connection | 8 | 64 |\n|---|---|---|---|\n",
            );
        }
        for cells in &self.requests {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }
}

/// Replaces what stands between the markers.
pub fn write_between_markers(file: &Path, text: &str) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let old = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
    let new = replaced(&old, text).ok_or(format!("{name} has no line {BEGIN} … {END}"))?;
    std::fs::write(file, new).map_err(|e| format!("{name}: {e}"))
}

fn replaced(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        assert_eq!(replaced(&old, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nz\n"));
        assert!(replaced("no markers", "new").is_none());
    }
}
