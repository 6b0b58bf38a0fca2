//! `/sandboxes/{id}/exec/ws`: a command as a conversation over a WebSocket.
//!
//! Two ends run beside each other: what the command says goes out at the client's pace, what the
//! client says comes in at the command's. Neither waits for the other, and nothing is gathered but a
//! few messages of input.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use control::{Context, ExecKind};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, Stream, StreamExt};
use http::HeaderMap;
use protocol::worker::Stdin;
use tokio::sync::mpsc;
use tokio::time::timeout;
use types::api::{ClientWord, ExecRequest, ServerWord};
use types::{ErrorCode, Fault};

use super::exec::{Encoding, input};
use super::talk::{Feed, Inward, Outward, Over, Simple};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::extract::Param;
use crate::json;

/// A message of a client; one that is larger closes the socket.
const MESSAGE: usize = 256 * 1024;
/// Until the first message.
const FIRST: Duration = Duration::from_secs(30);
/// Messages of input that wait for the command.
const INPUT: usize = 16;
/// Complaints that wait to be sent; more are dropped.
const NOTICES: usize = 16;
/// For the client to take our goodbye.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) type Sink = SplitSink<WebSocket, Message>;

pub(crate) async fn upgrade(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Param(id): Param,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    let socket = socket.map_err(|_| Fault::bad_request("this route takes a WebSocket"))?;
    let context = caller.context_with_owner(&headers)?;
    let place = Arc::clone(&app.sessions.places).try_acquire_owned();
    let place = place.map_err(|_| {
        Fault::new(ErrorCode::ResourceLimit, "too many WebSockets are open on this server")
    })?;
    let token = app.sessions.tasks.token();
    let socket = socket.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    Ok(socket.on_upgrade(move |socket| async move {
        let _held = (place, token);
        let closed = app.closed.clone();
        tokio::select! {
            () = Session { app, context, id }.run(socket) => {}
            () = closed.cancelled() => {}
        }
    }))
}

struct Session {
    app: App,
    context: Context,
    id: String,
}

/// What the first message asks for.
enum Wish {
    /// The form without types: one request, chunks, done.
    Simple(Box<ExecRequest>),
    Start(Box<ExecRequest>),
    Attach(ClientWord),
}

impl Session {
    async fn run(self, socket: WebSocket) {
        let (mut sink, mut stream) = socket.split();
        let first = tokio::select! {
            first = timeout(FIRST, first(&mut stream)) => first,
            () = self.app.closing.cancelled() => {
                return close(sink, stream, close_code::AWAY, "the server is stopping").await;
            }
        };
        let wish = match first {
            Ok(Some(Ok(wish))) => wish,
            Ok(Some(Err(fault))) => {
                send_fault(&mut sink, &fault).await;
                return close(sink, stream, close_code::INVALID, "not a request").await;
            }
            Ok(None) => return,
            Err(_) => return close(sink, stream, close_code::POLICY, "no request came").await,
        };
        match wish {
            Wish::Simple(request) => self.simple(sink, stream, *request).await,
            Wish::Start(request) => self.start(sink, stream, *request).await,
            Wish::Attach(word) => self.attach(sink, stream, word).await,
        }
    }

    async fn simple(self, mut sink: Sink, stream: SplitStream<WebSocket>, request: ExecRequest) {
        let started = async {
            let encoding = Encoding::parse(request.encoding.as_deref())?;
            if request.tty == Some(true) || request.detach == Some(true) {
                let text = "terminals and detached commands take a message of the type start";
                return Err(Fault::bad_request(text));
            }
            let input = input(request, encoding)?;
            let events = self
                .app
                .control
                .exec_stream(&self.context, &self.id, input, ExecKind::Socket)
                .await?;
            Ok((events, encoding))
        };
        let (events, encoding) = match started.await {
            Ok(started) => started,
            Err(fault) => {
                let _ = sink.send(Simple::failure(&fault)).await;
                return close(sink, stream, close_code::ERROR, "not started").await;
            }
        };
        let closing = self.app.closing.clone();
        let mut talk = Simple { events, encoding, closing, sink, stream };
        // Dropping the output of a command that the client left cancels it.
        match talk.run().await {
            Over::Exited => close(talk.sink, talk.stream, close_code::NORMAL, "").await,
            Over::Broken => close(talk.sink, talk.stream, close_code::ERROR, "broken").await,
            Over::Stopping => close(talk.sink, talk.stream, close_code::AWAY, "stopping").await,
            Over::Left => {}
        }
    }

    async fn start(self, mut sink: Sink, stream: SplitStream<WebSocket>, request: ExecRequest) {
        let lives_on = request.detach == Some(true)
            || request.exec_id.as_deref().is_some_and(|id| !id.is_empty());
        let (binary, tty) = (request.binary == Some(true), request.tty == Some(true));
        let (feed, fed) = mpsc::channel(INPUT);
        let started = async {
            let encoding = Encoding::parse(request.encoding.as_deref())?;
            let mut input = input(request, encoding)?;
            // What the request brings along comes first.
            if let Some(bytes) = input.stdin.take() {
                let _ = feed.send(Some(bytes)).await;
            }
            let stdin = Stdin::Stream(Box::pin(incoming(fed)));
            let control = &self.app.control;
            let started = control.exec_session(&self.context, &self.id, input, stdin).await?;
            Ok((started, encoding))
        };
        let ((exec_id, events, fresh), encoding) = match started.await {
            Ok(started) => started,
            Err(fault) => {
                send_fault(&mut sink, &fault).await;
                return close(sink, stream, close_code::ERROR, "not started").await;
            }
        };
        let exec_id = exec_id.to_string();
        let over = self.converse(
            &exec_id,
            Outward::new(events, encoding, binary, tty),
            // One that was started before is written to as by anybody else.
            fresh.then_some(feed),
            sink,
            stream,
        );
        if over.await == Over::Left && !lives_on {
            let kill = types::signal::KILL;
            // One that has ended meanwhile needs none.
            let _ = self.app.control.exec_signal(&self.context, &self.id, &exec_id, kill).await;
        }
    }

    /// Looks at a command that runs or ran, and writes to it. Leaving ends nothing.
    async fn attach(self, mut sink: Sink, stream: SplitStream<WebSocket>, word: ClientWord) {
        let exec_id = word.exec_id.unwrap_or_default();
        let control = &self.app.control;
        let started = async {
            let encoding = Encoding::parse(word.encoding.as_deref())?;
            let record = control.exec_record(&self.context, &self.id, &exec_id).await?;
            let offset = word.offset.unwrap_or(0);
            let events =
                control.exec_output(&self.context, &self.id, &exec_id, offset, true).await?;
            Ok::<_, Fault>((events, encoding, record.tty))
        };
        let (events, encoding, tty) = match started.await {
            Ok(started) => started,
            Err(fault) => {
                send_fault(&mut sink, &fault).await;
                return close(sink, stream, close_code::ERROR, "not attached").await;
            }
        };
        let outward = Outward::new(events, encoding, word.binary == Some(true), tty);
        self.converse(&exec_id, outward, None, sink, stream).await;
    }

    /// Both ends, until one is over.
    async fn converse(
        &self,
        exec_id: &str,
        mut outward: Outward,
        feed: Option<mpsc::Sender<Feed>>,
        mut sink: Sink,
        mut stream: SplitStream<WebSocket>,
    ) -> Over {
        let (notices, noticed) = mpsc::channel(NOTICES);
        let mut inward = Inward::new(
            (&self.app, &self.context, &self.id, exec_id),
            feed,
            outward.encoding(),
            notices,
            outward.heard(),
        );
        let closing = self.app.closing.clone();
        let over = tokio::select! {
            over = outward.run(exec_id, &mut sink, noticed, closing) => over,
            () = inward.run(&mut stream) => Over::Left,
        };
        drop(inward);
        match over {
            Over::Exited => close(sink, stream, close_code::NORMAL, "").await,
            Over::Broken => close(sink, stream, close_code::ERROR, "broken").await,
            Over::Stopping => close(sink, stream, close_code::AWAY, "stopping").await,
            Over::Left => {}
        }
        over
    }
}

/// The client's input as the command's stdin. It ends when the client says so, and not when the
/// client has gone: whoever attaches next types on.
fn incoming(mut fed: mpsc::Receiver<Feed>) -> impl Stream<Item = Result<Bytes, Fault>> {
    futures_util::stream::poll_fn(move |cx| match fed.poll_recv(cx) {
        Poll::Ready(Some(Some(bytes))) => Poll::Ready(Some(Ok(bytes))),
        Poll::Ready(Some(None)) => Poll::Ready(None),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
}

/// The first message that is one; `None` if there is none.
async fn first(stream: &mut SplitStream<WebSocket>) -> Option<Result<Wish, Fault>> {
    loop {
        match stream.next().await? {
            Ok(Message::Text(text)) => return Some(wish(text.as_bytes())),
            Ok(Message::Binary(_)) => {
                return Some(Err(Fault::bad_request("the first message is text")));
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}

fn wish(text: &[u8]) -> Result<Wish, Fault> {
    let word: ClientWord = json::read(text)?;
    match word.kind.as_deref() {
        None => Ok(Wish::Simple(Box::new(json::read(text)?))),
        Some("start") => Ok(Wish::Start(Box::new(json::read(text)?))),
        Some("attach") => Ok(Wish::Attach(word)),
        Some(_) => Err(Fault::bad_request("the first message is of the type start or attach")),
    }
}

/// Parses a client's message as the WebSocket does: for fuzzing.
#[doc(hidden)]
pub fn parses(first_message: bool, text: &[u8]) -> bool {
    if first_message { wish(text).is_ok() } else { json::read::<ClientWord>(text).is_ok() }
}

async fn send_fault(sink: &mut Sink, fault: &Fault) {
    let _ = sink.send(message(&error(fault))).await;
}

pub(super) fn error(fault: &Fault) -> ServerWord {
    ServerWord::Error { code: fault.code.as_str().to_owned(), message: fault.message.clone() }
}

/// JSON as a text message.
pub(super) fn message<T: serde::Serialize>(word: &T) -> Message {
    let mut bytes = json::write(word);
    bytes.pop();
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    Message::Text(text.into())
}

/// Says goodbye, and waits until the client has taken it: what it still sends would else make the
/// kernel throw away what it has not read.
async fn close(mut sink: Sink, mut stream: SplitStream<WebSocket>, code: u16, reason: &str) {
    let frame = CloseFrame { code, reason: reason.into() };
    let goodbye = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(FAREWELL, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_told_apart() {
        let kind = |text: &str| match wish(text.as_bytes()) {
            Ok(Wish::Simple(_)) => "simple",
            Ok(Wish::Start(r)) if r.tty == Some(true) => "terminal",
            Ok(Wish::Start(_)) => "start",
            Ok(Wish::Attach(_)) => "attach",
            Err(_) => "refused",
        };
        assert_eq!(kind(r#"{"command":"true"}"#), "simple");
        assert_eq!(kind(r#"{"TYPE":"start","command":"sh","tty":true,"cols":9}"#), "terminal");
        assert_eq!(kind(r#"{"type":"start"}"#), "start");
        assert_eq!(kind(r#"{"type":"attach","exec_id":"a","offset":7}"#), "attach");
        for bad in [
            "",
            "[]",
            "{}{}",
            r#"{"type":"stdin"}"#,
            r#"{"type":"start","cols":-1}"#,
            r#"{"type":"start","type":"start"}"#,
        ] {
            assert_eq!(kind(bad), "refused", "{bad}");
        }
    }
}
