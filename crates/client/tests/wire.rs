//! The client against a server of canned answers: what is sent, how answers and refusals are read.

#![allow(clippy::unwrap_used)] // a helper that fails fails its test

use client::api::{ExecRequest, SpawnRequest};
use client::{Client, Error, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use types::Secret;

/// Answers one request with `parts`, each flushed on its own, and returns the request.
async fn answer(parts: Vec<&'static str>) -> (Client, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !complete(&request) {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "the client hung up early");
            request.extend_from_slice(&piece[..n]);
        }
        for part in parts {
            stream.write_all(part.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        String::from_utf8(request).unwrap()
    });
    let options = Options {
        api_key: Some(Secret::new("k1")),
        admin_key: Some(Secret::new("k2")),
        user_id: Some("ann".to_owned()),
        ..Options::new(server)
    };
    (Client::new(options).unwrap(), task)
}

/// Whether head and announced body are there.
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn a_call_carries_keys_and_an_escaped_id() {
    let (client, task) =
        answer(vec!["HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"status\":\"destroyed\"}"])
            .await;
    let grace = std::time::Duration::from_secs(90);
    let status = client.destroy("a/../b", Some(grace)).await.unwrap();
    assert_eq!(status.status, "destroyed");
    let request = task.await.unwrap();
    assert!(request.starts_with("DELETE /api/v1/sandboxes/a%2F..%2Fb?grace=1m30s HTTP/1.1\r\n"));
    for header in ["x-api-key: k1", "x-admin-api-key: k2", "x-user-id: ann"] {
        assert!(request.contains(header), "{header}: {request}");
    }
}

#[tokio::test]
async fn a_refusal_has_status_code_and_words() {
    let (client, task) = answer(vec![
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 42\r\n\r\n\
         {\"code\":\"RESOURCE_LIMIT\",\"message\":\"full\"}",
    ])
    .await;
    let request = SpawnRequest { memory_mb: Some(64), ..SpawnRequest::default() };
    let error = client.spawn(&request).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(429), Some("RESOURCE_LIMIT")));
    assert_eq!(error.to_string(), "full");
    assert!(task.await.unwrap().ends_with("{\"memory_mb\":64}"), "absent stays absent");
}

#[tokio::test]
async fn a_refusal_by_something_else_is_still_told() {
    let (client, _task) =
        answer(vec!["HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\n<html"]).await;
    let error = client.list().await.unwrap_err();
    assert_eq!(error.status(), Some(502));
    assert!(error.to_string().contains("502"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_named_so() {
    let (client, _task) = answer(vec!["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"]).await;
    assert!(matches!(client.health().await, Err(Error::Protocol { .. })));
}

#[tokio::test]
async fn not_ready_is_an_answer_too() {
    let (client, _task) = answer(vec![
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n\
         {\"status\":\"not_ready\",\"version\":\"1\",\"uptime\":\"1s\",\"providers\":[],\
         \"ready_providers\":0,\"total_providers\":1}",
    ])
    .await;
    assert_eq!(client.ready().await.unwrap().status, "not_ready");
}

#[tokio::test]
async fn a_stream_is_read_line_by_line() {
    let (client, task) = answer(vec![
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        "{\"stream\":\"stdout\",\"da",
        "ta\":\"a\\u0085b\"}\n\n\n{\"stream\":\"stderr\",\"data\":\"e\"}\n",
        "{\"stream\":\"exit\",\"data\":\"\",\"exit_code\":3}",
    ])
    .await;
    let request = ExecRequest { command: Some("x".into()), ..ExecRequest::default() };
    let mut lines = client.exec_stream("sb-1", &request).await.unwrap();
    let mut seen = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        seen.push((line.stream, line.data, line.exit_code));
    }
    let line = |stream: &str, data: &str, code| (stream.to_owned(), data.to_owned(), code);
    assert_eq!(
        seen,
        [line("stdout", "a\u{85}b", None), line("stderr", "e", None), line("exit", "", Some(3))]
    );
    assert!(task.await.unwrap().ends_with("{\"command\":\"x\",\"stream\":true}"));
}

#[tokio::test]
async fn a_stream_that_breaks_says_so() {
    let (client, _task) = answer(vec![
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
        "{\"stream\":\"stdout\",\"data\":\"a\"}\n",
    ])
    .await;
    let mut lines = client.exec_stream("sb-1", &ExecRequest::default()).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().data, "a");
    assert!(matches!(lines.next().await, Err(Error::Broken { .. })));
}

#[tokio::test]
async fn nobody_there_says_what_to_do() {
    let error = Client::new(Options::new("http://127.0.0.1:1")).unwrap().list().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }));
    assert!(error.to_string().contains("is `stacyvm serve` running?"), "{error}");
    assert_eq!(error.code(), None);
}
