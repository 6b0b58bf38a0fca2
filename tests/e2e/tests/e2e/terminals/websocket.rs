//! The exec WebSocket.

use client::api::{ClientWord, ExecRequest, ServerWord};
use client::{Heard, Listener, Topic};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use testkit::wait_for;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Bed, SOON, spawn};

fn shell(command: &str) -> ExecRequest {
    ExecRequest { command: Some(command.to_owned()), ..ExecRequest::default() }
}

fn on_terminal(command: &str) -> ExecRequest {
    ExecRequest { tty: Some(true), cols: Some(90), rows: Some(20), ..shell(command) }
}

fn start(request: ExecRequest) -> Topic {
    Topic::Start(Box::new(request))
}

/// Listens until the output holds `text`.
async fn until(listener: &mut Listener, seen: &mut String, text: &str) {
    while !seen.contains(text) {
        match listener.next().await.unwrap() {
            Some(Heard::Stdout(data) | Heard::Stderr(data)) => {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            Some(Heard::Word(ServerWord::Started { .. })) => {}
            other => panic!("{other:?} after {seen:?}, before {text:?}"),
        }
    }
}

/// Listens to the end; all output, and the exit code.
async fn to_the_end(listener: &mut Listener) -> (Vec<u8>, i32) {
    let mut output = Vec::new();
    loop {
        match listener.next().await.unwrap() {
            Some(Heard::Stdout(data) | Heard::Stderr(data)) => output.extend_from_slice(&data),
            Some(Heard::Word(ServerWord::Exit { exit_code, .. })) => return (output, exit_code),
            Some(Heard::Word(ServerWord::Started { .. })) => {}
            other => panic!("{other:?} after {} bytes", output.len()),
        }
    }
}

async fn raw(bed: &Bed) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(bed.server.addr()).await.unwrap();
    let url = format!("ws://{}{}", bed.server.addr(), bed.path("/exec/ws"));
    client_async(url, stream).await.unwrap().0
}

async fn say(socket: &mut WebSocketStream<TcpStream>, word: Value) {
    socket.send(Message::Text(word.to_string().into())).await.unwrap();
}

/// All text messages until the close, and its code.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> (Vec<Value>, u16) {
    let mut words = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => words.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => return (words, frame.unwrap().code.into()),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {words:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bug_3_the_exec_websocket_opens_and_talks() {
    for provider in ["mock", "native"] {
        let bed = Bed::make(provider).await;
        // The simple form: one request, chunks, done.
        let mut socket = raw(&bed).await;
        say(&mut socket, json!({ "command": "echo out; echo h\u{e4} >&2; exit 4" })).await;
        let (words, code) = hear(&mut socket).await;
        assert_eq!(code, 1000, "{words:?}");
        assert!(words.iter().any(|w| w["stream"] == "stdout" && w["data"] == "out\n"));
        assert!(words.iter().any(|w| w["stream"] == "stderr" && w["data"] == "h\u{e4}\n"));
        let done = words.last().unwrap();
        assert_eq!((&done["type"], &done["exit_code"]), (&json!("done"), &json!(4)));
        // What cannot start says so.
        let mut socket = raw(&bed).await;
        say(&mut socket, json!({ "command": "true", "workdir": "/none" })).await;
        let (words, code) = hear(&mut socket).await;
        assert!(words[0]["error"].is_string() && code == 1011, "{words:?}");
        // What makes no sense, too.
        let mut socket = raw(&bed).await;
        say(&mut socket, json!([1])).await;
        assert_eq!(hear(&mut socket).await.1, 1007);

        // Typed, without a terminal: input, its end, both streams.
        let client = bed.server.client();
        let request = shell("cat; echo err >&2; exit 5");
        let (mut speaker, mut listener) =
            client.talk(&bed.sandbox, &start(request), false).await.unwrap();
        speaker.stdin("hello\n".into()).await.unwrap();
        let mut seen = String::new();
        until(&mut listener, &mut seen, "hello\n").await;
        let close = ClientWord { kind: Some("close_stdin".into()), ..ClientWord::default() };
        speaker.say(&close).await.unwrap();
        assert_eq!(to_the_end(&mut listener).await, (b"err\n".to_vec(), 5));

        // A terminal: its size, a new one, keys, a signal.
        let script = "trap 'stty size' WINCH; trap 'echo hup' HUP; stty size; \
                      until [ \"$x\" = end ]; do read x && echo \"got $x\"; done; exit 6";
        let topic = start(on_terminal(script));
        let (mut speaker, mut listener) = client.talk(&bed.sandbox, &topic, true).await.unwrap();
        let mut seen = String::new();
        until(&mut listener, &mut seen, "20 90\r\n").await;
        let resize = ClientWord {
            kind: Some("resize".into()),
            cols: Some(33),
            rows: Some(11),
            ..ClientWord::default()
        };
        speaker.say(&resize).await.unwrap();
        until(&mut listener, &mut seen, "11 33").await;
        let hup = ClientWord {
            kind: Some("signal".into()),
            signal: Some("HUP".into()),
            ..ClientWord::default()
        };
        speaker.say(&hup).await.unwrap();
        until(&mut listener, &mut seen, "hup\r\n").await;
        speaker.stdin("a\nend\n".into()).await.unwrap();
        until(&mut listener, &mut seen, "got end").await;
        assert_eq!(to_the_end(&mut listener).await.1, 6);
        bed.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_arrive_whole_at_a_client_that_takes_its_time() {
    let bed = Bed::make("native").await;
    let client = bed.server.client();
    let request = shell("head -c 50000000 /dev/zero; exit 2");
    let (_speaker, mut listener) = client.talk(&bed.sandbox, &start(request), false).await.unwrap();
    // Another looks on and never listens: it holds nobody.
    let id = loop {
        if let Some(Heard::Word(ServerWord::Started { exec_id })) = listener.next().await.unwrap() {
            break exec_id;
        }
    };
    let topic = Topic::Attach { exec_id: id, offset: 0 };
    let _idle = client.talk(&bed.sandbox, &topic, false).await.unwrap();
    let (output, code) = to_the_end(&mut listener).await;
    assert_eq!((output.len(), code), (50_000_000, 2));
    assert!(output.iter().all(|b| *b == 0));
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_ends_the_command_unless_it_is_to_live_on() {
    let bed = Bed::make("native").await;
    let client = bed.server.client();
    for lives_on in [false, true] {
        let request = ExecRequest { detach: Some(lives_on), ..on_terminal("echo up; exec cat") };
        let topic = start(request);
        let (speaker, mut listener) = client.talk(&bed.sandbox, &topic, true).await.unwrap();
        let Some(Heard::Word(ServerWord::Started { exec_id })) = listener.next().await.unwrap()
        else {
            panic!("it did not start");
        };
        until(&mut listener, &mut String::new(), "up").await;
        drop((speaker, listener));
        if !lives_on {
            let ended = bed.wait(&exec_id).await;
            assert_eq!((&ended["exit_code"], &ended["signal"]), (&json!(137), &json!("KILL")));
            continue;
        }
        // Two look at it at once, and either may type.
        let topic = Topic::Attach { exec_id: exec_id.clone(), offset: 0 };
        let (mut one, mut hears_one) = client.talk(&bed.sandbox, &topic, true).await.unwrap();
        let (mut two, mut hears_two) = client.talk(&bed.sandbox, &topic, true).await.unwrap();
        one.stdin("from one\n".into()).await.unwrap();
        let (mut seen_one, mut seen_two) = (String::new(), String::new());
        until(&mut hears_two, &mut seen_two, "up\r\nfrom one\r\nfrom one\r\n").await;
        two.stdin("from two\n".into()).await.unwrap();
        until(&mut hears_one, &mut seen_one, "from two\r\nfrom two\r\n").await;
        let close = ClientWord { kind: Some("close_stdin".into()), ..ClientWord::default() };
        one.say(&close).await.unwrap();
        assert_eq!(to_the_end(&mut hears_one).await.1, 0);
        assert_eq!(to_the_end(&mut hears_two).await.1, 0);
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_terminals_at_once() {
    let bed = Bed::make("native").await;
    let client = bed.server.client();
    let talks = (0..200).map(|n| {
        let (client, sandbox) = (client.clone(), bed.sandbox.clone());
        tokio::spawn(async move {
            let topic = start(on_terminal("read x; echo \"heard $x\"; exit 9"));
            let (mut speaker, mut listener) = client.talk(&sandbox, &topic, true).await.unwrap();
            speaker.stdin(format!("word-{n}\n").into()).await.unwrap();
            let (output, code) = to_the_end(&mut listener).await;
            let output = String::from_utf8_lossy(&output).into_owned();
            assert!(output.contains(&format!("heard word-{n}\r\n")), "{output:?}");
            assert_eq!(code, 9);
        })
    });
    for talk in talks.collect::<Vec<_>>() {
        talk.await.unwrap();
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_and_commands_harm_only_themselves() {
    let bed = Bed::make("native").await;
    // A message that is too large ends its own conversation, and the command.
    let mut socket = raw(&bed).await;
    say(&mut socket, json!({ "type": "start", "command": "exec sleep 1000", "exec_id": "" })).await;
    let started = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let id =
        serde_json::from_str::<Value>(&started).unwrap()["exec_id"].as_str().unwrap().to_owned();
    let _ = socket.send(Message::Binary(vec![b'x'; 300 << 10].into())).await;
    assert_eq!(bed.wait(&id).await["signal"], "KILL");
    // Words that make no sense are answered, and the conversation goes on.
    let mut socket = raw(&bed).await;
    say(&mut socket, json!({ "type": "start", "command": "read x; exit 3" })).await;
    for bad in [
        json!(7),
        json!({ "type": "fly" }),
        json!({ "type": "resize", "cols": 0 }),
        json!({ "type": "signal", "signal": "NOPE" }),
        json!({ "type": "start" }),
    ] {
        say(&mut socket, bad).await;
    }
    say(&mut socket, json!({ "type": "stdin", "data": "go\n" })).await;
    let (words, code) = hear(&mut socket).await;
    assert_eq!((code, &words.last().unwrap()["exit_code"]), (1000, &json!(3)), "{words:?}");
    assert!(words.iter().filter(|w| w["type"] == "error").count() >= 4, "{words:?}");
    // Without keys, a page of another site is refused.
    let stream = TcpStream::connect(bed.server.addr()).await.unwrap();
    let url = format!("ws://{}{}", bed.server.addr(), bed.path("/exec/ws"));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    let refused = client_async(request, stream).await.unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");
    // A plain request is told what the route takes.
    assert_eq!(bed.call("GET", "/exec/ws", Value::Null).await.status, 400);

    // A terminal of a neighbour is out of reach, and so are the host's.
    let client = bed.server.client();
    let topic = start(on_terminal("tty; exec cat"));
    let (_speaker, mut listener) = client.talk(&bed.sandbox, &topic, true).await.unwrap();
    until(&mut listener, &mut String::new(), "/dev/pts/").await;
    let neighbour = spawn(&bed.server).await;
    let path = format!("/api/v1/sandboxes/{neighbour}/exec");
    let script = "ls /dev/pts; for n in 0 1 2 3 4 5 6 7 8 9; do (echo x >/dev/pts/$n) 2>/dev/null && \
                  echo reached $n; done; ls /proc/1/fd 2>&1";
    let told = bed.server.call("POST", &path, &[], &json!({ "command": script })).await.unwrap();
    let told = told.json().unwrap();
    let out = told["stdout"].as_str().unwrap();
    // The one that is there is its own console.
    assert!(out.lines().filter(|l| l.starts_with("reached")).count() <= 1, "{told}");
    // Whoever floods a terminal floods his own conversation.
    let topic = start(on_terminal("yes $(head -c 4000 /dev/zero | tr '\\0' f)"));
    let _flood = client.talk(&bed.sandbox, &topic, true).await.unwrap();
    wait_for("others are served beside it", SOON, async || {
        let told = bed.exec(json!({ "command": "echo served" })).await;
        if told.text().contains("served") { Ok(()) } else { Err(told.text()) }
    })
    .await;
    let gone = format!("/api/v1/sandboxes/{neighbour}");
    bed.server.call("DELETE", &gone, &[], &Value::Null).await.unwrap();
    bed.close().await;
}
