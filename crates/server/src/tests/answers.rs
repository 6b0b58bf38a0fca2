//! What comes back.

use super::house::{API, BOTH, open};

#[tokio::test]
async fn a_panic_is_an_answer_and_the_server_goes_on() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let reply = house.ask("GET", &format!("/sandboxes/{id}/stats"), "").await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.json().unwrap()["code"], "INTERNAL_ERROR");
    assert!(!reply.text().contains("fault of its own"), "{}", reply.text());
    assert_eq!(house.ask("GET", &format!("/sandboxes/{id}"), "").await.status, 200);
}

#[tokio::test]
async fn bug_33_path_parameters_are_decoded() {
    let house = open(BOTH).await;
    for path in ["/workers/w%401", "/workers/w@1", "/workers/%77%401/"] {
        let reply = house.ask("GET", path, "").await;
        assert_eq!(reply.json().unwrap()["id"], "w@1", "{path}");
    }
    assert_eq!(house.ask("GET", "/workers/%ff", "").await.status, 400);
    assert_eq!(house.ask("GET", "/sandboxes/..%2f..%2fetc", "").await.status, 404);
}

#[tokio::test]
async fn bug_12_admission_has_the_keys_that_clients_know() {
    let house = open(BOTH).await;
    let reply = house.ask("POST", "/sandboxes/admission", "{\"owner_id\":\"me\"}").await;
    let known = [
        "allowed",
        "queueable",
        "reason",
        "active_sandboxes",
        "max_sandboxes",
        "active_owner_sandboxes",
        "max_owner_sandboxes",
        "max_ttl",
    ];
    let body = reply.json().unwrap();
    assert_eq!(body["allowed"], true, "{body}");
    for key in body.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{key}");
    }
}

#[tokio::test]
async fn bug_29_nothing_writes_the_configuration() {
    let house = open(BOTH).await;
    let reply = house.ask("PATCH", "/config", "{}").await;
    assert_eq!(reply.status, 404, "{}", reply.text());
}

#[tokio::test]
async fn bug_32_a_large_body_is_refused_and_its_sender_reads_why() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let body = format!(r#"{{"path":"/x","content":"{}"}}"#, "x".repeat(8 * 1024 * 1024));
    let reply = house.ask("POST", &format!("/sandboxes/{id}/files"), &body).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json().unwrap()["code"], "TOO_LARGE");
}

#[tokio::test]
async fn exec_is_captured_or_streamed() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = format!("/sandboxes/{id}/exec");
    let captured = house.ask("POST", &path, r#"{"command":"hi"}"#).await.json().unwrap();
    let told = (&captured["exit_code"], &captured["stdout"]);
    assert_eq!(told, (&0.into(), &"hi\n".into()), "{captured}");
    let streamed = house.ask("POST", &path, r#"{"command":"hi","stream":true}"#).await;
    assert_eq!(streamed.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(
        streamed.text(),
        "{\"stream\":\"stdout\",\"data\":\"hi\\n\"}\n{\"stream\":\"exit\",\"data\":\"\",\"exit_code\":0}\n"
    );
}

#[tokio::test]
async fn a_file_cut_short_never_looks_whole() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let whole = house.ask("GET", &format!("/sandboxes/{id}/files?path=/a%20b"), "").await;
    assert_eq!(whole.text(), "/a b");
    assert_eq!(whole.header("content-length"), Some("4"));
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    let path = format!("/api/v1/sandboxes/{id}/files?path=/short");
    let key = [("X-API-Key".to_owned(), API.to_owned())];
    assert!(testkit::exchange(house.addr, "GET", &path, &key, b"").await.is_err());
}

#[tokio::test]
async fn log_lines_are_counted_or_a_hundred() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    for (asked, given) in [("", "100"), ("?lines=2", "2"), ("?lines=x", "100"), ("?lines=0", "100")]
    {
        let reply = house.ask("GET", &format!("/sandboxes/{id}/logs{asked}"), "").await;
        assert_eq!(reply.json().unwrap()[0], given, "{asked}");
    }
}
