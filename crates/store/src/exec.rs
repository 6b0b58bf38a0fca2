//! Records of commands: who ran what, when, how it ended.

use types::{ExecId, OwnerId, SandboxId, TenantId, Timestamp};

/// Why an end is not known: nobody saw it.
pub const LOST: &str = "lost";
/// Why an end is not known: its caller left, and it was ended for that.
pub const CANCELLED: &str = "cancelled";

/// How a command was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecKind {
    /// Its caller waits for all of its output.
    Captured,
    /// Its caller gets the output as it comes.
    Streamed,
    /// Over a WebSocket.
    Socket,
    Detached,
}

impl ExecKind {
    pub const ALL: [Self; 4] = [Self::Captured, Self::Streamed, Self::Socket, Self::Detached];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Streamed => "streamed",
            Self::Socket => "websocket",
            Self::Detached => "detached",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Which commands of a sandbox to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecPage {
    /// Only those that have not ended.
    pub running: bool,
    /// Newest first, starting after this one.
    pub after: Option<(Timestamp, ExecId)>,
    pub limit: u32,
}

/// A command that was started, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRecord {
    pub sandbox_id: SandboxId,
    pub exec_id: ExecId,
    pub tenant_id: Option<TenantId>,
    pub owner_id: Option<OwnerId>,
    /// The beginning of what was asked for, for people.
    pub command: String,
    /// Of the whole request. Empty: a plain one, which belongs to its caller and cannot be asked
    /// for again.
    pub fingerprint: String,
    pub kind: ExecKind,
    pub run_as: Option<String>,
    /// As it was asked for.
    pub workdir: Option<String>,
    pub tty: bool,
    pub created_at: Timestamp,
    /// When the sandbox said that it runs.
    pub started_at: Option<Timestamp>,
    pub end: Option<ExecEnd>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnd {
    pub at: Timestamp,
    /// `None`: nobody knows, for the reason in `lost`.
    pub exit_code: Option<i32>,
    /// The signal that ended it; 0 for none.
    pub signal: i32,
    pub timed_out: bool,
    pub oom_killed: bool,
    /// The reason of the sandbox's end, or [`LOST`], or [`CANCELLED`]. Beside an exit code: its last
    /// output is not known.
    pub lost: Option<String>,
}

impl ExecRecord {
    pub fn is_plain(&self) -> bool {
        self.fingerprint.is_empty()
    }
}

/// The last output of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// How many bytes came before.
    pub first: u64,
    /// `false` for stdout, `true` for stderr, and the bytes of each piece, in order.
    pub runs: Vec<(bool, u32)>,
    pub bytes: Vec<u8>,
}

impl ExecOutput {
    pub fn push(&mut self, stderr: bool, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        match self.runs.last_mut() {
            Some((last, n)) if *last == stderr && n.checked_add(len).is_some() => *n += len,
            Some(_) | None => self.runs.push((stderr, len)),
        }
        self.bytes.extend_from_slice(data);
    }

    /// How many bytes came in all.
    pub fn total(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    /// The pieces from `offset` on, with where each begins.
    pub fn pieces(&self, offset: u64) -> impl Iterator<Item = (u64, bool, &[u8])> {
        let mut at = 0;
        self.runs.iter().filter_map(move |(stderr, len)| {
            let end = (at + *len as usize).min(self.bytes.len());
            let from = usize::try_from(offset.saturating_sub(self.first)).unwrap_or(usize::MAX);
            let from = from.clamp(at, end);
            let piece = (self.first + from as u64, *stderr, &self.bytes[from..end]);
            at = end;
            (!piece.2.is_empty()).then_some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_begin_where_they_are_asked_for() {
        let mut output = ExecOutput { first: 100, ..ExecOutput::default() };
        output.push(false, b"ab");
        output.push(false, b"c");
        output.push(true, b"de");
        let from = |offset| output.pieces(offset).collect::<Vec<_>>();
        assert_eq!(from(0), [(100, false, &b"abc"[..]), (103, true, b"de")]);
        assert_eq!(from(102), [(102, false, &b"c"[..]), (103, true, b"de")]);
        assert_eq!(from(104), [(104, true, &b"e"[..])]);
        assert_eq!((from(105).len(), output.total()), (0, 105));
    }
}
