//! The console: the last lines of what was written to it, and one line for each step of life.
//!
//! Bounded whatever is written: a line has at most [`LINE`] bytes, all lines together the bytes
//! that the limits give.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::outbox::json_len;
use crate::sys;

/// A longer line is cut into several.
const LINE: usize = 1024;
/// What a line costs beside its text, so that a flood of empty lines is bounded too.
const OVERHEAD: usize = 40;
/// JSON bytes of one answer; a frame holds 64 KiB.
const ANSWER: usize = 60 * 1024;

pub(crate) struct Console {
    lines: VecDeque<String>,
    bytes: usize,
    limit: usize,
    /// What came after the last line end.
    partial: Vec<u8>,
    /// Both ends of the terminal; the far one is kept open.
    pty: Option<(OwnedFd, OwnedFd)>,
}

impl Console {
    pub(crate) fn new(limit: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, limit, partial: Vec::new(), pty: None }
    }

    /// Opens the terminal that `/dev/console` points to. Without one only our own lines are kept.
    pub(crate) fn open(&mut self) -> Option<&OwnedFd> {
        self.pty = sys::open_pty().ok();
        self.pty.as_ref().map(|(near, _)| near)
    }

    /// Reads once from the terminal. Says whether there may be more.
    pub(crate) fn drain(&mut self) -> bool {
        let Some((near, _)) = &self.pty else { return false };
        let mut bytes = [0; 4096];
        match rustix::io::read(near, &mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.write(&bytes[..n]);
                true
            }
            Err(errno) => errno == rustix::io::Errno::INTR,
        }
    }

    /// Takes in what was written to the console.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ => {
                    self.partial.push(byte);
                    if self.partial.len() >= LINE {
                        self.end_line();
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        self.push(text);
    }

    /// Adds one line of our own.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(escape(text, LINE));
    }

    fn push(&mut self, line: String) {
        self.bytes += line.len() + OVERHEAD;
        self.lines.push_back(line);
        while self.bytes > self.limit
            && let Some(old) = self.lines.pop_front()
        {
            self.bytes -= old.len() + OVERHEAD;
        }
    }

    /// The last `count` lines, fewer if they don't fit into one answer. A line that has not ended
    /// is among them.
    pub(crate) fn last(&self, count: u32) -> Vec<String> {
        let partial =
            (!self.partial.is_empty()).then(|| String::from_utf8_lossy(&self.partial).into_owned());
        let mut size = 0;
        let mut lines: Vec<String> = partial
            .into_iter()
            .chain(self.lines.iter().rev().cloned())
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .take_while(|line| {
                size += json_len(line);
                size <= ANSWER
            })
            .collect();
        lines.reverse();
        lines
    }
}

/// Text with control characters written out, at most `max` bytes of it.
pub(crate) fn escape(text: &str, max: usize) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        if safe.len() >= max {
            safe.push('…');
            break;
        }
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_stays_within_its_bound() {
        let mut console = Console::new(10_000);
        for _ in 0..1000 {
            console.write(&[b'x'; 5000]);
            console.write(b"\n\n\n\n");
        }
        assert!(console.bytes <= 10_000, "{}", console.bytes);
        let kept: usize = console.lines.iter().map(|l| l.len() + OVERHEAD).sum();
        assert_eq!(kept, console.bytes);
        assert!(console.partial.len() < LINE);
    }

    #[test]
    fn lines_come_in_order_and_fit_a_frame() {
        let mut console = Console::new(1 << 20);
        console.write(b"one\r\ntwo\nthree");
        assert_eq!(console.last(2), ["two", "three"]);
        for _ in 0..200 {
            console.write(&[1; 1000]);
            console.write(b"\n");
        }
        let lines = console.last(u32::MAX);
        assert!(serde_json::to_string(&lines).unwrap().len() < protocol::agent::MAX_PAYLOAD);
        assert!(!lines.is_empty());
    }

    #[test]
    fn names_cannot_forge_lines() {
        let mut console = Console::new(10_000);
        console.note("exec a started: x\nexec b exited: 0\u{1b}[2J");
        assert_eq!(console.last(9), ["exec a started: x\\nexec b exited: 0\\u{1b}[2J"]);
    }
}
