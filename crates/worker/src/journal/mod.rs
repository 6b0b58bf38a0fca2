//! What a later server has to know of a sandbox, written before each step into its folder.
//!
//! Append-only lines of JSON, `{"v":1,"step":{…}}`. A crash may tear the last line: it is ignored.
//! Nothing is synced: a journal has to survive the process, not the host, since the sandbox does
//! not survive the host either. Written inline by the async code: a few hundred bytes into the page
//! cache take about 10 µs, less than the trip to a blocking thread.

mod record;
mod replay;

pub(crate) use record::{Intent, Step};
pub(crate) use replay::{Last, Replayed, Unreadable, read};

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use record::{Line, VERSION};

/// The name of the file in a sandbox's folder.
pub(crate) const FILE: &str = "journal";

/// Adds one step. The file is opened for each: a live sandbox keeps no descriptor for it.
pub(crate) fn append(dir: &Path, step: &Step) -> io::Result<()> {
    let mut text = Vec::with_capacity(512);
    serde_json::to_writer(&mut text, &Line { v: VERSION, step }).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).open(dir.join(FILE))?;
    // One write: either the whole line is there after a crash of this process, or a torn end.
    file.write_all(&text)
}

/// Ends a torn last line, so that the next one starts afresh.
pub(crate) fn mend(dir: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).open(dir.join(FILE))?.write_all(b"\n")
}
