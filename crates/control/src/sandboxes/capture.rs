//! Collecting the output of a command within bounds.

use futures_util::StreamExt;
use protocol::worker::{ExecEvent, ExecExit, ExecStream, OutputStream};
use types::{ErrorCode, Fault};

pub(super) struct Collected {
    pub exit: ExecExit,
    pub stdout: Kept,
    pub stderr: Kept,
}

/// The beginning of a stream, and whether there was more.
#[derive(Default)]
pub(super) struct Kept {
    pub bytes: Vec<u8>,
    pub truncated: bool,
}

impl Kept {
    fn add(&mut self, data: &[u8], max: usize) {
        let room = max.saturating_sub(self.bytes.len());
        let taken = &data[..data.len().min(room)];
        self.bytes.extend_from_slice(taken);
        self.truncated |= taken.len() < data.len();
    }
}

/// Reads to the end; what is above `max` bytes of a stream is drained, so that the command goes on.
pub(super) async fn collect(
    id: &str,
    mut events: ExecStream,
    max: usize,
) -> Result<Collected, Fault> {
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Output { stream: OutputStream::Stdout, data } => stdout.add(&data, max),
            ExecEvent::Output { stream: OutputStream::Stderr, data } => stderr.add(&data, max),
            // What is missing may be of either.
            ExecEvent::Gap { .. } => (stdout.truncated, stderr.truncated) = (true, true),
            ExecEvent::Paused => break,
            ExecEvent::Exit(exit) => return Ok(Collected { exit, stdout, stderr }),
        }
    }
    // An end without an exit is never taken for success.
    Err(Fault::new(ErrorCode::SandboxDead, format!("sandbox {id} ended before the command did")))
}
