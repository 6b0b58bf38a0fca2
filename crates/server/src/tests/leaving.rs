//! Clients that go away, clients that do not read, and a server that stops.

use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::FLOOD_CHUNK;
use super::house::{API, BOTH, House, open};

const SOON: Duration = Duration::from_secs(10);

/// A connection on which a request was sent, its answer not yet read.
async fn begin(house: &House, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(house.addr).await.unwrap();
    let request = format!(
        "POST /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut text)).await;
        let n = read.expect("an answer comes").unwrap();
        assert!(n > 0, "it ended without {wanted}: {}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_command_ends_when_its_client_leaves() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = format!("/sandboxes/{id}/exec");
    for (n, body) in
        [r#"{"command":"wait"}"#, r#"{"command":"wait","stream":true}"#].iter().enumerate()
    {
        let client = begin(&house, &path, body).await;
        wait_for("the command to run", SOON, async || {
            let running = house.seen.running.load(Ordering::SeqCst);
            if running > n { Ok(()) } else { Err(running) }
        })
        .await;
        assert_eq!(house.seen.cancelled.load(Ordering::SeqCst), n);
        drop(client);
        wait_for("the command to be cancelled", SOON, async || {
            let cancelled = house.seen.cancelled.load(Ordering::SeqCst);
            if cancelled == n + 1 { Ok(()) } else { Err(cancelled) }
        })
        .await;
    }
}

#[tokio::test]
async fn bug_54_a_spawn_whose_client_left_leaves_no_sandbox() {
    let house = open(BOTH).await;
    let client = begin(&house, "/sandboxes", r#"{"image":"slow"}"#).await;
    wait_for("the spawn to begin", SOON, async || {
        if house.seen.spawning.load(Ordering::SeqCst) { Ok(()) } else { Err("not yet") }
    })
    .await;
    drop(client);
    // The server reads the end of the connection before this round trip's request is accepted.
    assert_eq!(house.ask("GET", "/health", "").await.status, 200);
    house.gate.add_permits(1);
    wait_for("the sandbox to be destroyed", SOON, async || {
        let destroyed = house.seen.destroyed.lock().unwrap().len();
        if destroyed == 1 { Ok(()) } else { Err(destroyed) }
    })
    .await;
    assert_eq!(house.seen.alive.lock().unwrap().len(), 0);
}

/// The predecessor cut every answer two minutes after its request.
#[tokio::test]
async fn bug_4_a_stream_outlives_every_timer_of_the_door() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = format!("/sandboxes/{id}/exec");
    let mut client = begin(&house, &path, r#"{"command":"wait","stream":true}"#).await;
    read_until(&mut client, "begun").await;
    let before = tokio::time::Instant::now();
    // From here on an hour passes as fast as the blank lines are read that fill the silence.
    tokio::time::pause();
    let hour = Duration::from_secs(3600);
    let mut buffer = [0; 1024];
    while before.elapsed() < hour {
        assert!(client.read(&mut buffer).await.unwrap() > 0, "cut after {:?}", before.elapsed());
    }
    assert_eq!(house.seen.cancelled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn bug_4_a_slow_reader_slows_the_command_and_loses_nothing() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = format!("/sandboxes/{id}/exec");
    let mut client = begin(&house, &path, r#"{"command":"flood","stream":true}"#).await;
    let produced = || house.seen.produced.load(Ordering::SeqCst);
    // Nobody reads: it has to come to rest once the buffers are full.
    let mut last = (0, tokio::time::Instant::now());
    let rest = wait_for("the flood to come to rest", SOON, async || {
        if produced() != last.0 {
            last = (produced(), tokio::time::Instant::now());
        }
        let still = last.0 > 0 && last.1.elapsed() > Duration::from_millis(300);
        if still { Ok(last.0) } else { Err(last.0) }
    })
    .await;
    assert!(rest * FLOOD_CHUNK < 64 * 1024 * 1024, "{rest} chunks were made for nobody");
    let mut taken = 0;
    let mut buffer = vec![0; 256 * 1024];
    while taken < 2 * rest * FLOOD_CHUNK {
        let n = client.read(&mut buffer).await.unwrap();
        assert!(n > 0);
        taken += n;
    }
    assert!(produced() > rest);
}

#[tokio::test]
async fn a_stopping_server_tells_its_streams_and_takes_no_more() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = format!("/sandboxes/{id}/exec");
    let mut client = begin(&house, &path, r#"{"command":"wait","stream":true}"#).await;
    read_until(&mut client, "begun").await;
    // An idle connection must not keep the server.
    let idle = TcpStream::connect(house.addr).await.unwrap();
    house.shutdown.cancel();
    let end = read_until(&mut client, "0\r\n\r\n").await;
    assert!(end.contains(r#"{"stream":"exit","data":"","error":"UNAVAILABLE"}"#), "{end}");
    assert!(end.contains(r#""stream":"stderr""#), "{end}");
    let served = tokio::time::timeout(SOON, house.served).await;
    served.expect("it stops in time").unwrap().unwrap();
    drop(idle);
    assert!(TcpStream::connect(house.addr).await.is_err());
}
