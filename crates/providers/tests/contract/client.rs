//! The smallest client that speaks the agent protocol.

use std::time::Duration;

use protocol::agent::{
    Body, Channel, Decoder, End, ExecDone, ExecSpec, Frame, Hello, Kind, PROTOCOL_VERSION, Request,
    WINDOW,
};
use providers::AgentStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub struct Client {
    stream: AgentStream,
    decoder: Decoder,
    pub hello: Hello,
    calls: u32,
}

impl Client {
    pub async fn start(stream: AgentStream) -> Self {
        let mut client =
            Self { stream, decoder: Decoder::new(), hello: Hello::default(), calls: 0 };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            min_version: PROTOCOL_VERSION,
            ..Default::default()
        };
        client.send(Kind::Hello, 0, &serde_json::to_vec(&hello).unwrap()).await;
        let (kind, _, _, payload) = client.receive().await;
        assert_eq!(kind, Kind::Hello);
        client.hello = serde_json::from_slice(&payload).unwrap();
        client
    }

    /// Runs `sh -c script`; how it ended and what it wrote to both streams.
    pub async fn sh(&mut self, script: &str) -> (ExecDone, String) {
        self.calls += 1;
        let call = self.calls;
        let spec = ExecSpec {
            exec_id: format!("ex-{call}"),
            argv: vec!["sh".into(), "-c".into(), script.into()],
            timeout_ms: Some(20_000),
            ..Default::default()
        };
        let request = serde_json::to_vec(&Request::Exec(spec)).unwrap();
        self.send(Kind::Request, call, &request).await;
        let mut output = Vec::new();
        loop {
            let (kind, _, of, payload) = self.receive().await;
            match kind {
                Kind::Data if of == call => output.extend(payload),
                Kind::End if of == call => {
                    let end: End = serde_json::from_slice(&payload).unwrap();
                    let End::Ok(Body::Exec(done)) = end else { panic!("{end:?}") };
                    return (done, String::from_utf8(output).unwrap());
                }
                _ => {}
            }
            assert!(output.len() < WINDOW as usize, "this client grants no credit");
        }
    }

    async fn send(&mut self, kind: Kind, call: u32, payload: &[u8]) {
        let mut wire = Vec::new();
        Frame { kind, channel: Channel::Input, call, payload }.encode(&mut wire);
        self.stream.write_all(&wire).await.unwrap();
    }

    async fn receive(&mut self) -> (Kind, Channel, u32, Vec<u8>) {
        loop {
            if let Some(f) = self.decoder.next().unwrap() {
                return (f.kind, f.channel, f.call, f.payload.to_vec());
            }
            let mut bytes = [0; 8192];
            let read = self.stream.read(&mut bytes);
            let len = tokio::time::timeout(Duration::from_secs(30), read).await;
            let len = len.expect("the agent is silent").unwrap();
            assert!(len > 0, "the agent closed the connection");
            self.decoder.feed(&bytes[..len]);
        }
    }
}
