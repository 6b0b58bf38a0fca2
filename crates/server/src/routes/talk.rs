//! The two ends of a conversation over a WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use control::Context;
use data_encoding::BASE64;
use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use protocol::worker::{ByteStream, ExecEvent, ExecExit, ExecStream, OutputStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use types::api::{ClientWord, ServerWord};
use types::{ErrorCode, Fault, signal};

use super::exec::{Encoding, signal_name, tty_size};
use super::session::{Sink, error, message};
use crate::app::App;
use crate::error::chain;
use crate::json;
use crate::utf8::Joiner;

/// Between pings.
const PING: Duration = Duration::from_secs(30);
/// Pings without a sign of the client, after which it is taken for gone.
const SILENT: u32 = 3;
/// A client that takes nothing may be paused by its user; but not for ever.
const STALLED: Duration = Duration::from_secs(3600);

/// A piece of input; `None`: that was all.
pub(super) type Feed = Option<Bytes>;

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Exited,
    /// The command's end is not known.
    Broken,
    /// This server goes; the command stays.
    Stopping,
    /// The client has gone.
    Left,
}

/// From the command to the client.
pub(super) struct Outward {
    events: ExecStream,
    encoding: Encoding,
    binary: bool,
    tty: bool,
    stdout: Joiner,
    stderr: Joiner,
    heard: Arc<AtomicBool>,
}

impl Outward {
    pub fn new(events: ExecStream, encoding: Encoding, binary: bool, tty: bool) -> Self {
        let heard = Arc::new(AtomicBool::new(true));
        let (stdout, stderr) = (Joiner::default(), Joiner::default());
        Self { events, encoding, binary, tty, stdout, stderr, heard }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Set by whoever hears the client.
    pub fn heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heard)
    }

    /// Tells all, until the end.
    pub async fn run(
        &mut self,
        exec_id: &str,
        sink: &mut Sink,
        mut notices: mpsc::Receiver<ServerWord>,
        closing: CancellationToken,
    ) -> Over {
        let started = ServerWord::Started { exec_id: exec_id.to_owned() };
        if !send(sink, message(&started)).await {
            return Over::Left;
        }
        let mut ping = interval_at(Instant::now() + PING, PING);
        let mut silent = 0;
        loop {
            let (words, over) = tokio::select! {
                event = self.events.next() => self.told(event),
                Some(notice) = notices.recv() => (vec![message(&notice)], None),
                _ = ping.tick() => {
                    silent = if self.heard.swap(false, Ordering::Relaxed) { 0 } else { silent + 1 };
                    if silent >= SILENT {
                        return Over::Left;
                    }
                    (vec![Message::Ping(Bytes::new())], None)
                }
                () = closing.cancelled() => {
                    let fault = Fault::unavailable("the server is stopping; the command runs on");
                    (vec![message(&error(&fault))], Some(Over::Stopping))
                }
            };
            for word in words {
                if !send(sink, word).await {
                    return Over::Left;
                }
            }
            if let Some(over) = over {
                return over;
            }
        }
    }

    fn told(&mut self, event: Option<Result<ExecEvent, Fault>>) -> (Vec<Message>, Option<Over>) {
        match event {
            Some(Ok(ExecEvent::Output { stream, data })) => {
                (self.output(stream, data).into_iter().collect(), None)
            }
            Some(Ok(ExecEvent::Gap { lost })) => {
                let mut words = self.rest();
                words.push(message(&ServerWord::Gap { lost }));
                (words, None)
            }
            Some(Ok(ExecEvent::Exit(exit))) => {
                let mut words = self.rest();
                words.push(message(&ended(exit)));
                (words, Some(Over::Exited))
            }
            Some(Err(fault)) => self.broken(&fault),
            Some(Ok(ExecEvent::Paused)) | None => {
                self.broken(&Fault::unavailable("the connection to the sandbox was lost"))
            }
        }
    }

    fn broken(&mut self, fault: &Fault) -> (Vec<Message>, Option<Over>) {
        tracing::info!(code = %fault.code, error = %chain(fault), "a conversation broke");
        let mut words = self.rest();
        words.push(message(&error(fault)));
        (words, Some(Over::Broken))
    }

    /// A message for a piece of output; none while a character is not whole.
    fn output(&mut self, stream: OutputStream, data: Bytes) -> Option<Message> {
        if self.binary {
            return Some(Message::Binary(self.framed(stream, data)));
        }
        let joiner = match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        };
        let mut text = String::new();
        match self.encoding {
            Encoding::Text => joiner.push(&data, &mut |piece| text.push_str(piece)),
            Encoding::Base64 => text = BASE64.encode(&data),
        }
        (!text.is_empty()).then(|| message(&self.word(stream, text)))
    }

    /// Of a terminal the bytes as they are; else one byte before them says the stream: 1 or 2.
    fn framed(&self, stream: OutputStream, data: Bytes) -> Bytes {
        if self.tty {
            return data;
        }
        let mut framed = Vec::with_capacity(data.len() + 1);
        framed.push(match stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        });
        framed.extend_from_slice(&data);
        framed.into()
    }

    fn word(&self, stream: OutputStream, data: String) -> ServerWord {
        let stream = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        ServerWord::Output { stream: stream.to_owned(), data, encoding: self.encoding.name() }
    }

    /// Characters that will never be whole.
    fn rest(&mut self) -> Vec<Message> {
        let mut words = Vec::new();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let joiner = match stream {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            let mut text = String::new();
            joiner.finish(&mut |piece| text.push_str(piece));
            if !text.is_empty() {
                words.push(message(&self.word(stream, text)));
            }
        }
        words
    }
}

fn ended(exit: ExecExit) -> ServerWord {
    ServerWord::Exit {
        exit_code: exit.exit_code,
        signal: signal_name(exit.signal).filter(|_| !exit.timed_out),
        timed_out: exit.timed_out,
        oom_killed: exit.oom_killed,
    }
}

async fn send(sink: &mut Sink, word: Message) -> bool {
    matches!(timeout(STALLED, sink.send(word)).await, Ok(Ok(())))
}

/// Where a client's words go: server, caller, sandbox, command.
type Place<'a> = (&'a App, &'a Context, &'a str, &'a str);

/// From the client to the command.
pub(super) struct Inward<'a> {
    place: Place<'a>,
    /// The input that is open; `None`: none was opened yet, or it is closed.
    feed: Option<mpsc::Sender<Feed>>,
    closed: bool,
    /// The input is not ours alone.
    attached: bool,
    encoding: Encoding,
    notices: mpsc::Sender<ServerWord>,
    heard: Arc<AtomicBool>,
}

impl<'a> Inward<'a> {
    /// Without a `feed`, one is opened when it is needed.
    pub fn new(
        place: Place<'a>,
        feed: Option<mpsc::Sender<Feed>>,
        encoding: Encoding,
        notices: mpsc::Sender<ServerWord>,
        heard: Arc<AtomicBool>,
    ) -> Self {
        let attached = feed.is_none();
        Self { place, feed, closed: false, attached, encoding, notices, heard }
    }

    /// Listens until the client has gone.
    pub async fn run(&mut self, stream: &mut SplitStream<WebSocket>) {
        while let Some(Ok(word)) = stream.next().await {
            self.heard.store(true, Ordering::Relaxed);
            let done = match word {
                Message::Binary(bytes) => self.stdin(bytes).await,
                Message::Text(text) => self.word(text.as_bytes()).await,
                Message::Ping(_) | Message::Pong(_) => Ok(()),
                Message::Close(_) => return,
            };
            if let Err(fault) = done {
                // More complaints than the client takes are not kept for it.
                let _ = self.notices.try_send(error(&fault));
            }
        }
    }

    async fn word(&mut self, text: &[u8]) -> Result<(), Fault> {
        let word: ClientWord = json::read(text)?;
        let (app, context, id, exec_id) = self.place;
        match word.kind.as_deref() {
            Some("stdin") => {
                let encoding = match &word.encoding {
                    Some(name) => Encoding::parse(Some(name))?,
                    None => self.encoding,
                };
                let data = encoding.decode("data", word.data.unwrap_or_default())?;
                self.stdin(data).await
            }
            Some("close_stdin") => self.close_stdin().await,
            Some("resize") => {
                let size = tty_size(word.cols, word.rows)?;
                app.control.exec_resize(context, id, exec_id, size).await
            }
            Some("signal") => {
                let number = signal::parse(word.signal.as_deref().unwrap_or_default());
                let number = number
                    .ok_or_else(|| Fault::bad_request("signal is a name like TERM, or a number"))?;
                app.control.exec_signal(context, id, exec_id, number).await
            }
            Some("start" | "attach") => Err(Fault::bad_request("a command was started already")),
            Some(_) | None => Err(Fault::bad_request("the type of the message is not known")),
        }
    }

    async fn stdin(&mut self, data: Bytes) -> Result<(), Fault> {
        if self.closed {
            return Err(Fault::new(ErrorCode::Conflict, "stdin is closed"));
        }
        if data.is_empty() {
            return Ok(());
        }
        let feed = match &self.feed {
            Some(feed) => feed,
            None => &*self.feed.insert(self.open()),
        };
        match feed.send(Some(data)).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.feed = None;
                self.closed = true;
                Err(Fault::new(ErrorCode::Conflict, "the command reads no more input"))
            }
        }
    }

    async fn close_stdin(&mut self) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        let feed = match self.feed.take() {
            Some(feed) => feed,
            None if self.attached => self.open(),
            None => return Ok(()),
        };
        // A command that is gone has no input to be closed.
        let _ = feed.send(None).await;
        Ok(())
    }

    /// Opens an input that carries what is sent to it.
    fn open(&self) -> mpsc::Sender<Feed> {
        let (feed, mut fed) = mpsc::channel(1);
        let (app, context, id, exec_id) = self.place;
        let (control, tasks) = (app.control.clone(), app.sessions.tasks.clone());
        let closing = app.closing.clone();
        let (context, notices) = (context.clone(), self.notices.clone());
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        tasks.spawn(async move {
            let end_said = Arc::new(AtomicBool::new(false));
            let said = Arc::clone(&end_said);
            let next = move |cx: &mut std::task::Context<'_>| {
                fed.poll_recv(cx).map(|piece: Option<Feed>| {
                    said.fetch_or(piece == Some(None), Ordering::Relaxed);
                    piece.flatten().map(Ok)
                })
            };
            let data: ByteStream = Box::pin(futures_util::stream::poll_fn(next));
            let work = async {
                control.exec_input(&context, &id, &exec_id, data, false).await?;
                if end_said.load(Ordering::Relaxed) {
                    let nothing = Box::pin(futures_util::stream::empty());
                    control.exec_input(&context, &id, &exec_id, nothing, true).await?;
                }
                Ok::<_, Fault>(())
            };
            tokio::select! {
                done = work => {
                    if let Err(fault) = done {
                        let _ = notices.try_send(error(&fault));
                    }
                }
                () = closing.cancelled() => {}
            }
        });
        feed
    }
}

/// The form of one request: chunks, then done; what the client says later is not read.
pub(super) struct Simple {
    pub events: ExecStream,
    pub encoding: Encoding,
    pub closing: CancellationToken,
    pub sink: Sink,
    pub stream: SplitStream<WebSocket>,
}

impl Simple {
    pub fn failure(fault: &Fault) -> Message {
        message(&serde_json::json!({ "error": fault.message, "code": fault.code.as_str() }))
    }

    pub async fn run(&mut self) -> Over {
        let events = std::mem::replace(&mut self.events, Box::pin(futures_util::stream::empty()));
        let mut outward = Outward::new(events, self.encoding, false, false);
        loop {
            let event = tokio::select! {
                event = outward.events.next() => event,
                () = gone(&mut self.stream) => return Over::Left,
                () = self.closing.cancelled() => {
                    let fault = Fault::unavailable("the server is stopping; the command runs on");
                    let _ = send(&mut self.sink, Self::failure(&fault)).await;
                    return Over::Stopping;
                }
            };
            let (words, over) = match event {
                Some(Ok(ExecEvent::Output { stream, data })) => {
                    (outward.output(stream, data).into_iter().collect(), None)
                }
                Some(Ok(ExecEvent::Gap { .. } | ExecEvent::Paused)) => (Vec::new(), None),
                Some(Ok(ExecEvent::Exit(exit))) => {
                    let mut words = outward.rest();
                    words.push(message(&ServerWord::Done { exit_code: Some(exit.exit_code) }));
                    (words, Some(Over::Exited))
                }
                Some(Err(fault)) => (vec![Self::failure(&fault)], Some(Over::Broken)),
                None => {
                    let fault = Fault::unavailable("the connection to the sandbox was lost");
                    (vec![Self::failure(&fault)], Some(Over::Broken))
                }
            };
            for word in words {
                if !send(&mut self.sink, word).await {
                    return Over::Left;
                }
            }
            if let Some(over) = over {
                return over;
            }
        }
    }
}

async fn gone(stream: &mut SplitStream<WebSocket>) {
    while let Some(Ok(word)) = stream.next().await {
        if matches!(word, Message::Close(_)) {
            return;
        }
    }
}
