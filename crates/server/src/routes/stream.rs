//! A command's output as NDJSON.
//!
//! Nothing is gathered beyond one chunk: the client's pace is the command's pace. Dropping the
//! body drops the control side's stream, which cancels the command.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{FutureExt, StreamExt, stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use protocol::worker::{ExecEvent, ExecExit, ExecStream, OutputStream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use types::api::StreamLine;
use types::{ErrorCode, Fault};

use super::exec::{Encoding, signal_name};
use crate::error::chain;
use crate::json;
use crate::utf8::Joiner;

/// A blank line after so much silence: published clients give up after 30 s without a byte.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Lines that are ready together go out together, up to about so many bytes.
const CHUNK: usize = 128 * 1024;

/// A command that never stops writing must not keep a stopping server: so long it may go on.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The exit code of a command that ran into its timeout.
const TIMED_OUT: i32 = 124;

/// `offset`: of a command that is looked at, whose lines say where they begin.
pub(super) fn respond(
    events: ExecStream,
    closing: CancellationToken,
    encoding: Encoding,
    offset: Option<u64>,
) -> Response {
    let lines = Lines {
        events,
        closing,
        encoding,
        offset,
        stdout: Joiner::default(),
        stderr: Joiner::default(),
        chunk: Vec::new(),
        until: None,
        done: false,
    };
    let chunks = stream::unfold(lines, |mut lines| async move {
        let chunk = lines.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), lines))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct Lines {
    events: ExecStream,
    closing: CancellationToken,
    encoding: Encoding,
    /// Where the next byte is.
    offset: Option<u64>,
    stdout: Joiner,
    stderr: Joiner,
    chunk: Vec<u8>,
    /// Set once the server is stopping.
    until: Option<Instant>,
    done: bool,
}

impl Lines {
    /// The next bytes to send; `None` after the last line.
    async fn next(&mut self) -> Option<Bytes> {
        let quiet_until = Instant::now() + KEEP_ALIVE;
        if !self.done && self.closing.is_cancelled() {
            let until = *self.until.get_or_insert_with(|| Instant::now() + LAST_WORDS);
            if until <= Instant::now() {
                self.stopping();
            }
        }
        while self.chunk.is_empty() {
            if self.done {
                return None;
            }
            // What has come out goes first: only then is the end told.
            tokio::select! {
                biased;
                event = self.events.next() => self.write(event),
                () = self.closing.cancelled() => self.stopping(),
                () = sleep_until(quiet_until) => return Some(Bytes::from_static(b"\n")),
            }
        }
        while !self.done && self.chunk.len() < CHUNK {
            let Some(event) = self.events.next().now_or_never() else { break };
            self.write(event);
        }
        Some(Bytes::from(std::mem::take(&mut self.chunk)))
    }

    fn write(&mut self, event: Option<Result<ExecEvent, Fault>>) {
        match event {
            Some(Ok(ExecEvent::Output { stream, data })) => self.output(stream, &data),
            Some(Ok(ExecEvent::Gap { lost })) => self.gap(lost),
            Some(Ok(ExecEvent::Paused)) => {
                self.flush();
                self.done = true;
            }
            Some(Ok(ExecEvent::Exit(exit))) => self.exit(exit),
            Some(Err(fault)) => self.broken(&fault),
            None => self.broken(&Fault::unavailable("the connection to the sandbox was lost")),
        }
    }

    fn output(&mut self, stream: OutputStream, data: &[u8]) {
        if self.encoding != Encoding::Text || self.offset.is_some() {
            return self.detailed(stream, data);
        }
        let (joiner, head) = match stream {
            OutputStream::Stdout => (&mut self.stdout, &br#"{"stream":"stdout","data":""#[..]),
            OutputStream::Stderr => (&mut self.stderr, &br#"{"stream":"stderr","data":""#[..]),
        };
        // Room for a usual chunk at once, so that it does not grow step by step.
        self.chunk.reserve(data.len() + data.len() / 8 + 64);
        let start = self.chunk.len();
        self.chunk.extend_from_slice(head);
        let empty = self.chunk.len();
        joiner.push(data, &mut |text| json::escape(text, &mut self.chunk));
        if self.chunk.len() == empty {
            self.chunk.truncate(start);
        } else {
            self.chunk.extend_from_slice(b"\"}\n");
        }
    }

    /// A line that says more than its text.
    fn detailed(&mut self, stream: OutputStream, data: &[u8]) {
        let (joiner, name) = match stream {
            OutputStream::Stdout => (&mut self.stdout, "stdout"),
            OutputStream::Stderr => (&mut self.stderr, "stderr"),
        };
        let mut text = String::new();
        match self.encoding {
            // What is held back of a character counts to the line that brings it whole.
            Encoding::Text => joiner.push(data, &mut |piece| text.push_str(piece)),
            Encoding::Base64 => text = BASE64.encode(data),
        }
        let offset = self.offset;
        self.offset = offset.map(|at| at.saturating_add(data.len() as u64));
        if !text.is_empty() {
            let encoding = self.encoding.name();
            let line = StreamLine { offset, encoding, ..line(name, &text) };
            self.chunk.extend(json::write(&line));
        }
    }

    fn gap(&mut self, lost: u64) {
        self.flush();
        let line = StreamLine { offset: self.offset, lost: Some(lost), ..line("gap", "") };
        self.offset = self.offset.map(|at| at.saturating_add(lost));
        self.chunk.extend(json::write(&line));
    }

    fn exit(&mut self, exit: ExecExit) {
        self.flush();
        if exit.timed_out {
            self.words("exec timeout: the command ran longer than it may");
        }
        self.last(StreamLine {
            exit_code: Some(if exit.timed_out { TIMED_OUT } else { exit.exit_code }),
            timed_out: exit.timed_out,
            oom_killed: exit.oom_killed,
            signal: signal_name(exit.signal).filter(|_| !exit.timed_out),
            offset: self.offset,
            ..blank_exit()
        });
    }

    fn broken(&mut self, fault: &Fault) {
        if fault.code == ErrorCode::InternalError {
            tracing::error!(error = %chain(fault), "a stream broke");
        } else {
            tracing::info!(code = %fault.code, error = %chain(fault), "a stream broke");
        }
        self.flush();
        self.words(&fault.message);
        self.last(StreamLine { error: Some(fault.code.as_str().to_owned()), ..blank_exit() });
    }

    fn stopping(&mut self) {
        self.broken(&Fault::unavailable("the server is stopping; the command runs on"));
    }

    /// Characters that will never be whole.
    fn flush(&mut self) {
        for (joiner, name) in [(&mut self.stdout, "stdout"), (&mut self.stderr, "stderr")] {
            let chunk = &mut self.chunk;
            joiner.finish(&mut |text| chunk.extend(json::write(&line(name, text))));
        }
    }

    fn words(&mut self, text: &str) {
        let text = format!("{text}\n");
        // Ours, not the command's: its offset is where the command's output is.
        let line = match self.encoding {
            Encoding::Text => line("stderr", &text),
            Encoding::Base64 => StreamLine {
                encoding: self.encoding.name(),
                ..line("stderr", &BASE64.encode(text.as_bytes()))
            },
        };
        self.chunk.extend(json::write(&line));
    }

    fn last(&mut self, line: StreamLine) {
        self.chunk.extend(json::write(&line));
        self.done = true;
    }
}

fn line(stream: &str, data: &str) -> StreamLine {
    StreamLine { stream: stream.to_owned(), data: data.to_owned(), ..blank_exit() }
}

fn blank_exit() -> StreamLine {
    StreamLine {
        stream: "exit".to_owned(),
        data: String::new(),
        exit_code: None,
        timed_out: false,
        oom_killed: false,
        error: None,
        signal: None,
        encoding: None,
        offset: None,
        lost: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(events: Vec<Result<ExecEvent, Fault>>, closing: bool) -> String {
        let token = CancellationToken::new();
        let stream: ExecStream = if closing {
            token.cancel();
            Box::pin(stream::iter(events).chain(stream::pending()))
        } else {
            Box::pin(stream::iter(events))
        };
        let body = respond(stream, token, Encoding::Text, None).into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn out(data: &'static [u8]) -> Result<ExecEvent, Fault> {
        Ok(ExecEvent::Output { stream: OutputStream::Stdout, data: Bytes::from_static(data) })
    }

    fn err(data: &'static [u8]) -> Result<ExecEvent, Fault> {
        Ok(ExecEvent::Output { stream: OutputStream::Stderr, data: Bytes::from_static(data) })
    }

    #[tokio::test]
    async fn bug_26_each_stream_joins_its_own_characters() {
        let exit = Ok(ExecEvent::Exit(ExecExit { exit_code: 3, ..Default::default() }));
        let events = vec![out(b"a\xe2\x80"), err(b"\xc2"), out(b"\xa8b\n"), err(b"\x85"), exit];
        assert_eq!(
            text(events, false).await,
            concat!(
                "{\"stream\":\"stdout\",\"data\":\"a\"}\n",
                "{\"stream\":\"stdout\",\"data\":\"\\u2028b\\n\"}\n",
                "{\"stream\":\"stderr\",\"data\":\"\\u0085\"}\n",
                "{\"stream\":\"exit\",\"data\":\"\",\"exit_code\":3}\n"
            )
        );
    }

    #[tokio::test]
    async fn a_timeout_says_so_and_ends_with_124() {
        let exit = ExecExit { exit_code: 137, timed_out: true, ..Default::default() };
        let text = text(vec![out(b"begun\xff"), Ok(ExecEvent::Exit(exit))], false).await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "{\"stream\":\"stdout\",\"data\":\"begun\u{fffd}\"}");
        assert!(lines[1].starts_with("{\"stream\":\"stderr\",\"data\":\"exec timeout"), "{text}");
        assert_eq!(
            lines[2],
            "{\"stream\":\"exit\",\"data\":\"\",\"exit_code\":124,\"timed_out\":true}"
        );
    }

    #[tokio::test]
    async fn a_broken_stream_never_makes_up_an_exit_code() {
        let dead = Err(Fault::dead("the sandbox crashed"));
        let told = text(vec![out(b"x\xe2"), dead], false).await;
        assert!(told.contains("the sandbox crashed"));
        assert!(told.contains("\"data\":\"\u{fffd}\""));
        assert!(told.ends_with("{\"stream\":\"exit\",\"data\":\"\",\"error\":\"SANDBOX_DEAD\"}\n"));
        let lost = text(vec![out(b"x")], false).await;
        assert!(lost.ends_with("{\"stream\":\"exit\",\"data\":\"\",\"error\":\"UNAVAILABLE\"}\n"));
    }

    #[tokio::test]
    async fn a_stopping_server_tells_after_what_was_written() {
        let told = text(vec![out(b"x")], true).await;
        assert!(told.starts_with("{\"stream\":\"stdout\",\"data\":\"x\"}\n"), "{told}");
        assert!(told.ends_with("{\"stream\":\"exit\",\"data\":\"\",\"error\":\"UNAVAILABLE\"}\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_does_not_keep_a_stopping_server() {
        let token = CancellationToken::new();
        let flood: ExecStream = Box::pin(stream::repeat_with(|| out(b"x\n")));
        let mut body =
            respond(flood, token.clone(), Encoding::Text, None).into_body().into_data_stream();
        body.next().await.unwrap().unwrap();
        token.cancel();
        body.next().await.unwrap().unwrap();
        tokio::time::advance(LAST_WORDS).await;
        let last = body.next().await.unwrap().unwrap();
        assert!(last.ends_with(b"\"error\":\"UNAVAILABLE\"}\n"));
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_blank_lines() {
        let silent: ExecStream = Box::pin(stream::pending());
        let mut body = respond(silent, CancellationToken::new(), Encoding::Text, None)
            .into_body()
            .into_data_stream();
        let before = Instant::now();
        assert_eq!(body.next().await.unwrap().unwrap(), "\n");
        assert_eq!(before.elapsed().as_secs(), KEEP_ALIVE.as_secs());
    }
}
