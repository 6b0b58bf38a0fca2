//! A command as a conversation, over the exec WebSocket.

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Method, StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use types::api;
use types::api::{ClientWord, ServerWord};

use crate::sandboxes::sandbox;
use crate::{Client, Error};

/// More than any message of the server has.
const MAX_MESSAGE: usize = 4 << 20;
/// Of input in one message; the server takes four times as much.
const PIECE: usize = 64 * 1024;

type Socket = WebSocketStream<Upgraded>;

/// What is to be talked about.
#[derive(Debug, Clone)]
pub enum Topic {
    /// Starts a command.
    Start(Box<api::ExecRequest>),
    /// Looks at one that was started, from an offset on.
    Attach { exec_id: String, offset: u64 },
}

/// The words that a client sends.
pub struct Speaker {
    client: Client,
    sink: SplitSink<Socket, Message>,
}

/// The words that the server sends. Output comes as bytes.
pub struct Listener {
    client: Client,
    stream: SplitStream<Socket>,
    tty: bool,
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Stdout(Bytes),
    Stderr(Bytes),
    Word(ServerWord),
}

impl Client {
    /// Opens a conversation. `tty`: the command has a terminal.
    pub async fn talk(
        &self,
        id: &str,
        topic: &Topic,
        tty: bool,
    ) -> Result<(Speaker, Listener), Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|e| Error::Options(format!("no randomness: {e}")))?;
        let key = BASE64.encode(&nonce);
        let call = self
            .call(Method::GET, &sandbox(id, "/exec/ws"))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let response = self.send_upgrade(call).await?;
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|v| v.as_bytes().to_vec());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS
            || accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(self.protocol("no WebSocket"));
        }
        let upgraded = response.upgrade().await.map_err(|e| self.failed(e))?;
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MAX_MESSAGE);
        config.max_frame_size = Some(MAX_MESSAGE);
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let (sink, stream) = socket.split();
        let mut speaker = Speaker { client: self.clone(), sink };
        speaker.text(&first(topic)).await?;
        Ok((speaker, Listener { client: self.clone(), stream, tty }))
    }
}

fn first(topic: &Topic) -> serde_json::Value {
    let (kind, body) = match topic {
        Topic::Start(request) => ("start", serde_json::to_value(request)),
        Topic::Attach { exec_id, offset } => {
            let word = ClientWord {
                exec_id: Some(exec_id.clone()),
                offset: Some(*offset),
                ..ClientWord::default()
            };
            ("attach", serde_json::to_value(word))
        }
    };
    let mut body = body.unwrap_or_default();
    body["type"] = kind.into();
    body["binary"] = true.into();
    body
}

impl Speaker {
    /// Sends input.
    pub async fn stdin(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.message(Message::Binary(piece)).await?;
        }
        Ok(())
    }

    /// Sends a word that is not input.
    pub async fn say(&mut self, word: &ClientWord) -> Result<(), Error> {
        self.text(word).await
    }

    /// Takes its leave.
    pub async fn close(&mut self) {
        let _ = self.sink.close().await;
    }

    async fn text<T: serde::Serialize>(&mut self, word: &T) -> Result<(), Error> {
        let text = serde_json::to_string(word).map_err(|e| self.client.protocol(&e.to_string()))?;
        self.message(Message::Text(text.into())).await
    }

    async fn message(&mut self, message: Message) -> Result<(), Error> {
        self.sink.send(message).await.map_err(|e| self.client.protocol(&e.to_string()))
    }
}

impl Listener {
    /// What comes next; `None` when the server has closed the conversation.
    pub async fn next(&mut self) -> Result<Option<Heard>, Error> {
        while let Some(message) = self.stream.next().await {
            match message.map_err(|e| self.client.protocol(&e.to_string()))? {
                Message::Binary(data) if self.tty => return Ok(Some(Heard::Stdout(data))),
                Message::Binary(mut data) => {
                    let stream = (!data.is_empty()).then(|| data.split_to(1));
                    return match stream.as_deref() {
                        Some([1]) => Ok(Some(Heard::Stdout(data))),
                        Some([2]) => Ok(Some(Heard::Stderr(data))),
                        Some(_) | None => Err(self.client.protocol("output of no stream")),
                    };
                }
                Message::Text(text) => {
                    let word = serde_json::from_str(&text);
                    let word = word.map_err(|e| self.client.protocol(&e.to_string()))?;
                    return Ok(Some(Heard::Word(word)));
                }
                Message::Close(_) => return Ok(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }
}
