//! The few calls that every scenario is made of.

use crate::client::Client;

/// `echo ok`, captured, without a shell.
pub const ECHO: &str = r#"{"command":"echo","args":["ok"],"mode":"argv"}"#;
/// The same, streamed.
pub const ECHO_STREAM: &str = r#"{"command":"echo","args":["ok"],"mode":"argv","stream":true}"#;
/// As the peer's figures were made.
pub const TRUE: &str = r#"{"command":"true"}"#;

pub async fn spawn(client: &mut Client, order: &str) -> Result<String, String> {
    let made = client.json("POST", "/sandboxes", order).await?;
    made["id"].as_str().map(str::to_owned).ok_or(format!("no id in {made}"))
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
