//! The few calls that every scenario is made of.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;

/// `echo ok`, captured, without a shell.
pub const ECHO: &str = r#"{"command":"echo","args":["ok"],"mode":"argv"}"#;
/// The same, streamed.
const ECHO_STREAM: &str = r#"{"command":"echo","args":["ok"],"mode":"argv","stream":true}"#;
/// As the peer's figures were made.
pub const TRUE: &str = r#"{"command":"true"}"#;

pub async fn spawn(client: &mut Client, order: &str) -> Result<String, String> {
    let made = client.json("POST", "/sandboxes", order).await?;
    made["id"].as_str().map(str::to_owned).ok_or(format!("no id in {made}"))
}

/// A new sandbox that says `ok`.
pub struct Said {
    pub id: String,
    /// From the order until the sandbox is there.
    pub spawned: Duration,
    /// From the order until the first output.
    pub first: Duration,
}

/// Spawns a sandbox and runs `echo` in it.
pub async fn first_words(client: &mut Client, order: &str) -> Result<Said, String> {
    let begun = Instant::now();
    let id = spawn(client, order).await?;
    let spawned = begun.elapsed();
    let mut first = None;
    let path = format!("/sandboxes/{id}/exec");
    let note = |_: &[u8]| first = first.or_else(|| Some(begun.elapsed()));
    client.read_through("POST", &path, ECHO_STREAM, note).await?;
    Ok(Said { id, spawned, first: first.ok_or("an empty stream")? })
}

/// Runs a command and checks that it ended well.
pub async fn exec(client: &mut Client, id: &str, body: &str) -> Result<(), String> {
    let answer = client.ask("POST", &format!("/sandboxes/{id}/exec"), body).await?;
    match contains(&answer, b"\"exit_code\":0") {
        true => Ok(()),
        false => Err(format!("exec: {}", String::from_utf8_lossy(&answer))),
    }
}

pub async fn destroy(client: &mut Client, id: &str) -> Result<(), String> {
    client.ask("DELETE", &format!("/sandboxes/{id}"), "").await.map(|_| ())
}

pub fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w == word)
}
