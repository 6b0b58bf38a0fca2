//! A command on this terminal: keys in, output out, sizes along.

use client::api::{ClientWord, ServerWord};
use client::{Heard, Listener, Speaker};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::failpoint::hit;

use super::exec::{exit_code, explain};
use crate::assemble::Signals;
use crate::failure::Failure;
use crate::output;
use crate::terminal::{self, Raw};

/// Bytes of input read at once.
const PIECE: usize = 32 * 1024;
/// Ctrl-P and Ctrl-Q, one after the other: leave, and let the command go on.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// How a conversation is held.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The command has a terminal; ours becomes raw.
    pub tty: bool,
    /// Pass our input on.
    pub input: bool,
    /// Ctrl-P Ctrl-Q leaves.
    pub may_leave: bool,
}

/// Relays until the command has ended, or we leave. Returns the exit code.
pub async fn run(
    mut speaker: Speaker,
    mut listener: Listener,
    manner: Manner,
) -> Result<u8, Failure> {
    let mut signals = Signals::catch()?;
    let resized = signal(SignalKind::window_change())
        .map_err(|e| Failure::because("cannot watch the terminal", &e))?;
    let raw = if manner.tty && manner.input {
        Raw::enter().map_err(|e| Failure::because("cannot use the terminal", &e))?
    } else {
        None
    };
    let ended = tokio::select! {
        ended = listen(&mut listener) => ended,
        left = speak(&mut speaker, resized, manner) => left.map(|()| 0),
        signal = signals.next() => Ok(signal.exit_code()),
    };
    // Before anything is said.
    drop(raw);
    speaker.close().await;
    ended
}

/// Writes what comes.
async fn listen(listener: &mut Listener) -> Result<u8, Failure> {
    while let Some(heard) = listener.next().await? {
        hit("terminal.shown");
        match heard {
            Heard::Stdout(data) => output::stdout_bytes(&data)?,
            Heard::Stderr(data) => output::stderr_bytes(&data)?,
            Heard::Word(ServerWord::Output { stream, data, .. }) => match stream.as_str() {
                "stderr" => output::stderr_bytes(data.as_bytes())?,
                _ => output::stdout_bytes(data.as_bytes())?,
            },
            Heard::Word(ServerWord::Gap { .. }) => {
                output::note("\r\nstacyvm: some output is missing here\r");
            }
            Heard::Word(ServerWord::Exit { exit_code: code, timed_out, oom_killed, .. }) => {
                explain(timed_out, oom_killed);
                return Ok(exit_code(code));
            }
            Heard::Word(ServerWord::Error { code, message }) if is_fatal(&code) => {
                return Err(Failure::new(output::tame(&message)));
            }
            // About one word of ours: the conversation goes on.
            Heard::Word(ServerWord::Error { .. }) => {}
            Heard::Word(ServerWord::Started { .. } | ServerWord::Done { .. })
            | Heard::Word(ServerWord::Unknown) => {}
        }
    }
    Err(Failure::new("the conversation ended without an exit code: the command's end is not known"))
}

/// A word that comes too late is no end.
fn is_fatal(code: &str) -> bool {
    code != "CONFLICT"
}

/// Sends keys and sizes. Returns when the user wants to leave.
async fn speak(speaker: &mut Speaker, mut resized: Signal, manner: Manner) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; PIECE];
    let mut open = manner.input;
    let mut leaving = Leaving::default();
    if manner.tty {
        resize(speaker).await?;
    }
    loop {
        tokio::select! {
            read = stdin.read(&mut buffer), if open => match read {
                Ok(n) if n > 0 => {
                    if manner.may_leave && leaving.sees(&buffer[..n]) {
                        return Ok(());
                    }
                    speaker.stdin(buffer[..n].to_vec().into()).await?;
                }
                Ok(_) | Err(_) => {
                    open = false;
                    speaker.say(&word("close_stdin")).await?;
                }
            },
            _ = resized.recv(), if manner.tty => resize(speaker).await?,
            else => std::future::pending().await,
        }
    }
}

async fn resize(speaker: &mut Speaker) -> Result<(), Failure> {
    if let Some((cols, rows)) = terminal::size() {
        let word = ClientWord { cols: Some(cols), rows: Some(rows), ..word("resize") };
        speaker.say(&word).await?;
    }
    Ok(())
}

fn word(kind: &str) -> ClientWord {
    ClientWord { kind: Some(kind.to_owned()), ..ClientWord::default() }
}

/// Looks for the keys that leave, also where they come in two reads.
#[derive(Default)]
struct Leaving {
    begun: bool,
}

impl Leaving {
    fn sees(&mut self, keys: &[u8]) -> bool {
        for key in keys {
            if self.begun && *key == LEAVE[1] {
                return true;
            }
            self.begun = *key == LEAVE[0];
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_leave_are_seen_across_reads() {
        let seen = |reads: &[&[u8]]| {
            let mut leaving = Leaving::default();
            reads.iter().any(|keys| leaving.sees(keys))
        };
        assert!(seen(&[b"x\x10\x11"]) && seen(&[b"\x10", b"\x11"]) && seen(&[b"\x10\x10\x11"]));
        assert!(!seen(&[b"\x11\x10"]) && !seen(&[b"\x10x\x11"]) && !seen(&[b"\x11"]));
    }
}
