//! From the lines of a journal to what they say.

use std::io;
use std::path::Path;

use providers::Runtime;
use types::EndedReason;

use super::record::{RawLine, VERSION};
use super::{FILE, Intent, Step};

/// What a journal says in the end. Times and generation in `intent` are the latest ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replayed {
    pub intent: Intent,
    pub runtime: Option<Runtime>,
    pub last: Last,
    /// It was handed out by the warm pool: its agent may not have heard when it ends.
    pub taken: bool,
    /// The last line is cut off: [`super::mend`] before appending.
    pub torn: bool,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Intent,
    Running,
    Dead(EndedReason),
    Destroying(EndedReason),
}

/// Why a journal says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// No journal, or not one whole line: the folder is a stray.
    #[error("journal holds no order")]
    Nothing,
    #[error("journal is of version {0}, which this release does not know")]
    Newer(u32),
    #[error("reading a journal")]
    Io(#[source] io::Error),
}

/// Reads the journal of the sandbox in `dir`. Blocks.
pub(crate) fn read(dir: &Path) -> Result<Replayed, Unreadable> {
    match std::fs::read(dir.join(FILE)) {
        Ok(text) => replay(&text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Unreadable::Nothing),
        Err(e) => Err(Unreadable::Io(e)),
    }
}

/// The last valid line wins; what is not a line, or of a kind unknown here, is skipped.
pub(crate) fn replay(text: &[u8]) -> Result<Replayed, Unreadable> {
    let mut state: Option<Replayed> = None;
    for line in text.split(|b| *b == b'\n') {
        let Ok(line) = serde_json::from_slice::<RawLine>(line) else { continue };
        if line.v > VERSION {
            return Err(Unreadable::Newer(line.v));
        }
        let Ok(step) = serde_json::from_value::<Step>(line.step) else { continue };
        apply(&mut state, step);
    }
    let mut state = state.ok_or(Unreadable::Nothing)?;
    state.torn = text.last() != Some(&b'\n');
    Ok(state)
}

fn apply(state: &mut Option<Replayed>, step: Step) {
    match (step, state) {
        (Step::Intent(intent), state) => {
            *state = Some(Replayed {
                intent,
                runtime: None,
                last: Last::Intent,
                taken: false,
                torn: false,
            });
        }
        // Nothing is known about a sandbox before its intent.
        (_, None) => {}
        (Step::Running { runtime }, Some(state)) => {
            state.runtime = Some(runtime);
            state.last = Last::Running;
        }
        (Step::Extended { generation, expires_at, deadline }, Some(state)) => {
            state.intent.generation = state.intent.generation.max(generation);
            state.intent.expires_at = expires_at;
            state.intent.deadline = deadline;
            state.taken |= std::mem::take(&mut state.intent.warm);
        }
        (Step::Returned { expires_at, deadline }, Some(state)) => {
            state.intent.expires_at = expires_at;
            state.intent.deadline = deadline;
            state.intent.warm = true;
        }
        (Step::Dead { reason }, Some(state)) => state.last = Last::Dead(reason),
        (Step::Destroying { reason }, Some(state)) => state.last = Last::Destroying(reason),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
