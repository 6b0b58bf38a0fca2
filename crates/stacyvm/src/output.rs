//! The one place that writes to the terminal: answers on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::check::{Check, Severity};

/// Writes a line to stdout.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes JSON to stdout, readable by people too.
pub fn json(value: &Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// Writes bytes of a command to stdout, as they are.
pub fn stdout_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes bytes of a command to stderr, as they are.
pub fn stderr_bytes(bytes: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(bytes)
}

/// Says something beside the answer. Nobody to hear it is no error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says what went wrong.
pub fn error(text: &str) {
    let red = style(io::stderr().is_terminal(), AnsiColor::Red);
    let _ = writeln!(io::stderr().lock(), "{red}error:{red:#} {text}");
}

/// Writes a line over the last such one; only on a terminal.
pub fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[2K{text}");
        let _ = err.flush();
    }
}

/// Writes checks, coloured on a terminal.
pub fn checks(checks: &[Check], as_json: bool) -> io::Result<()> {
    if as_json {
        return json(&checks.iter().map(Check::json).collect());
    }
    let terminal = io::stdout().is_terminal();
    for check in checks {
        let color = match check.severity {
            Severity::Pass => AnsiColor::Green,
            Severity::Warn => AnsiColor::Yellow,
            Severity::Fail => AnsiColor::Red,
        };
        let style = style(terminal, color);
        let text = check.text();
        let (word, rest) = text.split_at(text.find(']').map_or(0, |at| at + 1));
        line(&format!("{style}{word}{style:#}{rest}"))?;
    }
    Ok(())
}

/// Writes a table with its columns aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            let cells = rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count());
            cells.chain([head[i].len()]).max().unwrap_or(0)
        })
        .collect();
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    line(&row(&mut head.iter().copied()))?;
    for cells in rows {
        line(&row(&mut cells.iter().map(String::as_str)))?;
    }
    Ok(())
}

/// A number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    const STEPS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match STEPS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Text from elsewhere, harmless to a terminal.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn style(terminal: bool, color: AnsiColor) -> Style {
    if terminal { color.on_default().bold() } else { Style::new() }
}

#[cfg(test)]
mod tests {
    use super::tame;

    #[test]
    fn no_escape_reaches_the_terminal() {
        assert_eq!(tame("a\tb\x1b[2J\u{9b}c\n"), "a\tb\u{fffd}[2J\u{fffd}c\u{fffd}");
    }
}
