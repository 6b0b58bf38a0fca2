//! An agent that speaks the real frames in memory, and lies when told to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use protocol::agent::{
    AgentError, AgentErrorCode, Body, Channel, Decoder, End, Event, ExecDone, ExecInfo, FileEntry,
    Frame, Hello, Kind, MAX_PAYLOAD, PROTOCOL_VERSION, Request, Status, WINDOW,
};
use providers::AgentStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use types::SandboxId;

/// How its hello is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    OtherSandbox,
    NewerProtocol,
    NoFrames,
    /// Accepts the connection and says nothing.
    HangsUp,
}

pub struct Agent {
    id: SandboxId,
    lie: Lie,
    stop: CancellationToken,
    pub files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub deadlines: Mutex<Vec<u64>>,
    pub cancelled: Mutex<usize>,
    pub signals: Mutex<Vec<String>>,
    /// Data sent by `flood` commands so far.
    pub flooded: Mutex<usize>,
    pub connections: Mutex<usize>,
    hanging: Mutex<Vec<String>>,
    termed: Notify,
}

type Out = mpsc::UnboundedSender<Vec<u8>>;

/// What an open call gets from the other side.
struct Open {
    credit: Arc<Semaphore>,
    input: mpsc::UnboundedSender<Option<Vec<u8>>>,
    cancel: CancellationToken,
}

impl Agent {
    pub fn new(id: SandboxId, lie: Lie) -> Arc<Self> {
        Arc::new(Self {
            id,
            lie,
            stop: CancellationToken::new(),
            files: Mutex::default(),
            deadlines: Mutex::default(),
            cancelled: Mutex::default(),
            signals: Mutex::default(),
            flooded: Mutex::default(),
            connections: Mutex::default(),
            hanging: Mutex::default(),
            termed: Notify::new(),
        })
    }

    /// The sandbox is gone: all connections end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn connect(self: &Arc<Self>) -> AgentStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            *agent.connections.lock().unwrap() += 1;
            let stop = agent.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = agent.clone().serve(ours) => {}
            }
            *agent.connections.lock().unwrap() -= 1;
        });
        Box::new(theirs)
    }

    async fn serve(self: Arc<Self>, stream: tokio::io::DuplexStream) {
        let (mut read, mut write) = tokio::io::split(stream);
        let (out, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let writer = async move {
            while let Some(bytes) = queue.recv().await {
                if bytes.is_empty() || write.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        self.greet(&out);
        let reader = async {
            let mut decoder = Decoder::new();
            let mut calls = HashMap::new();
            let mut buf = vec![0; 16 << 10];
            while let Ok(n @ 1..) = read.read(&mut buf).await {
                decoder.feed(&buf[..n]);
                while let Some(frame) = decoder.next().expect("the server sends frames") {
                    self.take_in(&frame, &mut calls, &out);
                }
            }
        };
        tokio::select! { () = writer => {}, () = reader => {} }
    }

    fn greet(&self, out: &Out) {
        let mut hello = Hello {
            version: PROTOCOL_VERSION,
            min_version: 1,
            sandbox_id: self.id.to_string(),
            ..Hello::default()
        };
        match self.lie {
            Lie::None => {}
            Lie::OtherSandbox => hello.sandbox_id = "sb-other".to_owned(),
            Lie::NewerProtocol => (hello.version, hello.min_version) = (99, 98),
            Lie::NoFrames => drop(out.send(b"SSH-2.0-OpenSSH_9.2p1 Debian".to_vec())),
            Lie::HangsUp => drop(out.send(Vec::new())),
        }
        send(out, Kind::Hello, Channel::Input, 0, &serde_json::to_vec(&hello).unwrap());
    }

    fn take_in(self: &Arc<Self>, frame: &Frame<'_>, calls: &mut HashMap<u32, Open>, out: &Out) {
        match frame.kind {
            Kind::Request => {
                let request: Request = serde_json::from_slice(frame.payload).unwrap();
                let credit = Arc::new(Semaphore::new(WINDOW as usize));
                let (input, received) = mpsc::unbounded_channel();
                let cancel = CancellationToken::new();
                let call = Call {
                    id: frame.call,
                    out: out.clone(),
                    credit: credit.clone(),
                    input: received,
                    cancel: cancel.clone(),
                };
                calls.insert(frame.call, Open { credit, input, cancel });
                tokio::spawn(Arc::clone(self).answer(request, call));
            }
            Kind::Credit => {
                calls[&frame.call].credit.add_permits(frame.credit().unwrap() as usize);
            }
            Kind::Data => drop(calls[&frame.call].input.send(Some(frame.payload.to_vec()))),
            Kind::Eof => drop(calls[&frame.call].input.send(None)),
            Kind::Cancel => {
                *self.cancelled.lock().unwrap() += 1;
                calls[&frame.call].cancel.cancel();
            }
            Kind::Ping => send(out, Kind::Pong, Channel::Input, 0, frame.payload),
            Kind::Hello | Kind::End | Kind::Event | Kind::Pong => {}
        }
    }

    async fn answer(self: Arc<Self>, request: Request, mut call: Call) {
        let end = match request {
            Request::Exec(spec) => {
                let argv: Vec<&str> = spec.argv.iter().map(String::as_str).collect();
                self.exec(&argv, &mut call).await
            }
            Request::Execs => {
                let running = self.hanging.lock().unwrap().clone();
                let info = |exec_id| ExecInfo { exec_id, running: true, ..ExecInfo::default() };
                End::Ok(Body::Execs { execs: running.into_iter().map(info).collect() })
            }
            Request::Signal { signal, .. } => {
                self.signals.lock().unwrap().push(signal);
                self.termed.notify_waiters();
                End::Ok(Body::Done)
            }
            Request::Write { path, .. } => self.write(path, &mut call).await,
            Request::Read { path } => self.read(&path, &mut call).await,
            Request::List { .. } => {
                let paths: Vec<_> = self.files.lock().unwrap().keys().cloned().collect();
                for path in paths {
                    let entry = FileEntry { path, mode: 0o100_644, ..FileEntry::default() };
                    call.event(&Event::Entries { entries: vec![entry] });
                }
                End::Ok(Body::Done)
            }
            Request::Glob { .. } => {
                // More than any consumer wants to hold.
                let paths = vec!["x".repeat(1000); 60];
                for _ in 0..700 {
                    call.event(&Event::Paths { paths: paths.clone() });
                }
                call.cancel.cancelled().await;
                refuse(AgentErrorCode::Cancelled, "given up")
            }
            Request::Logs { lines } => {
                End::Ok(Body::Lines { lines: vec!["line".to_owned(); lines as usize] })
            }
            Request::Status => End::Ok(Body::Status(Status { disk_bytes: 7, ..Status::default() })),
            Request::Deadline { boot_nanos } => {
                self.deadlines.lock().unwrap().push(boot_nanos);
                End::Ok(Body::Done)
            }
            _ => refuse(AgentErrorCode::Unsupported, "not known here"),
        };
        call.frame(Kind::End, Channel::Input, &serde_json::to_vec(&end).unwrap());
    }

    async fn exec(&self, argv: &[&str], call: &mut Call) -> End {
        if argv == ["none-left"] {
            return refuse(AgentErrorCode::NoResources, "no process left");
        }
        call.event(&Event::Started { exec_id: "ex-1".to_owned() });
        match argv {
            ["echo", text] => call.data(Channel::Out, text.as_bytes()).await,
            ["cat"] => {
                while let Some(piece) = call.input.recv().await.flatten() {
                    call.data(Channel::Out, &piece).await;
                    call.frame(Kind::Credit, Channel::Input, &(piece.len() as u32).to_le_bytes());
                }
            }
            ["tiny", count] => {
                for n in 0..count.parse::<usize>().unwrap() {
                    let channel = if n % 2 == 0 { Channel::Out } else { Channel::Err };
                    call.data(channel, b"x").await;
                }
            }
            ["flood", bytes] => {
                let mut left: usize = bytes.parse().unwrap();
                while left > 0 && !call.cancel.is_cancelled() {
                    let n = left.min(MAX_PAYLOAD);
                    call.data(Channel::Out, &vec![b'x'; n]).await;
                    *self.flooded.lock().unwrap() += n;
                    left -= n;
                }
            }
            ["hang"] => {
                self.hanging.lock().unwrap().push("ex-1".to_owned());
                tokio::select! {
                    () = call.cancel.cancelled() => {}
                    () = self.termed.notified() => {}
                }
                self.hanging.lock().unwrap().clear();
            }
            ["overrun"] => {
                for _ in 0..6 {
                    call.frame(Kind::Data, Channel::Out, &[b'x'; MAX_PAYLOAD]);
                }
                std::future::pending::<()>().await;
            }
            ["garbage"] => drop(call.out.send(vec![0xff; 64])),
            ["on-input"] => call.frame(Kind::Data, Channel::Input, b"?"),
            ["stray-frames"] => {
                for call_id in 1000..2000 {
                    send(&call.out, Kind::End, Channel::Input, call_id, b"{}");
                }
            }
            ["bad-end"] => call.frame(Kind::End, Channel::Input, b"not json"),
            ["hang-up"] => {
                call.data(Channel::Out, b"half").await;
                drop(call.out.send(Vec::new()));
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        End::Ok(Body::Exec(ExecDone { exit_code: 3, ..ExecDone::default() }))
    }

    async fn write(&self, path: String, call: &mut Call) -> End {
        let mut content = Vec::new();
        loop {
            tokio::select! {
                () = call.cancel.cancelled() => return refuse(AgentErrorCode::Cancelled, "given up"),
                piece = call.input.recv() => match piece.flatten() {
                    Some(piece) => {
                        if path == "/full" {
                            return refuse(AgentErrorCode::DiskFull, "the disk is full");
                        }
                        content.extend_from_slice(&piece);
                        let more = (piece.len() as u32).to_le_bytes();
                        call.frame(Kind::Credit, Channel::Input, &more);
                    }
                    None => break,
                },
            }
        }
        self.files.lock().unwrap().insert(path, content);
        End::Ok(Body::Done)
    }

    async fn read(&self, path: &str, call: &mut Call) -> End {
        let content = self.files.lock().unwrap().get(path).cloned();
        let Some(content) = content else {
            return refuse(AgentErrorCode::FileNotFound, "no such file");
        };
        call.event(&Event::Size { bytes: content.len() as u64, mode: 0o644 });
        call.data(Channel::Out, &content).await;
        End::Ok(Body::Done)
    }
}

struct Call {
    id: u32,
    out: Out,
    credit: Arc<Semaphore>,
    input: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    cancel: CancellationToken,
}

impl Call {
    fn frame(&self, kind: Kind, channel: Channel, payload: &[u8]) {
        send(&self.out, kind, channel, self.id, payload);
    }

    fn event(&self, event: &Event) {
        self.frame(Kind::Event, Channel::Input, &serde_json::to_vec(event).unwrap());
    }

    /// Sends as credit allows; gives up when cancelled.
    async fn data(&self, channel: Channel, data: &[u8]) {
        for piece in data.chunks(MAX_PAYLOAD) {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                permits = self.credit.acquire_many(piece.len() as u32) => permits.unwrap().forget(),
            }
            self.frame(Kind::Data, channel, piece);
        }
    }
}

fn send(out: &Out, kind: Kind, channel: Channel, call: u32, payload: &[u8]) {
    let mut bytes = Vec::new();
    Frame { kind, channel, call, payload }.encode(&mut bytes);
    // The connection may have ended.
    let _ = out.send(bytes);
}

fn refuse(code: AgentErrorCode, message: &str) -> End {
    End::Err(AgentError { code, message: message.to_owned() })
}
