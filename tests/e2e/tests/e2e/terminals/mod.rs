//! Commands that outlive connections and servers, and conversations over the WebSocket.

mod detached;
mod history;
mod many;
mod requests;
mod tmux;
mod websocket;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Reply, Running, System};

/// What anything here may take, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

pub fn config(provider: &str) -> Value {
    let mock = provider == "mock";
    json!({
        "providers": { "default": provider, "mock": { "enabled": mock },
                       "native": { "enabled": !mock } },
        "defaults": { "memory_mb": 256 },
    })
}

/// A server and a sandbox on it.
pub struct Bed {
    pub system: System,
    pub server: Running,
    pub sandbox: String,
}

impl Bed {
    pub async fn make(provider: &str) -> Self {
        let mut system = System::new(config(provider));
        let server = system.start().await;
        let sandbox = spawn(&server).await;
        Self { system, server, sandbox }
    }

    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/sandboxes/{}{rest}", self.sandbox)
    }

    pub async fn call(&self, method: &str, rest: &str, body: Value) -> Reply {
        self.server.call(method, &self.path(rest), &[], &body).await.unwrap()
    }

    pub async fn exec(&self, body: Value) -> Reply {
        self.call("POST", "/exec", body).await
    }

    /// Starts a detached command; its id.
    pub async fn start(&self, script: &str) -> String {
        let reply = self.exec(json!({ "command": script, "detach": true })).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json().unwrap()["exec_id"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a command; its record.
    pub async fn wait(&self, exec: &str) -> Value {
        let reply = self.call("GET", &format!("/execs/{exec}/wait?timeout=50s"), Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json().unwrap()
    }

    pub async fn close(self) {
        let gone = self.call("DELETE", "", Value::Null).await;
        assert_eq!(gone.status, 200, "{}", gone.text());
        assert!(self.server.stop().await.success());
        assert!(self.system.leftovers().is_empty(), "{:?}", self.system.leftovers());
    }
}

pub async fn spawn(server: &Running) -> String {
    let made = server.call("POST", "/api/v1/sandboxes", &[], &json!({})).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    made.json().unwrap()["id"].as_str().unwrap().to_owned()
}

/// The lines of an output.
pub fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let full = text.lines().filter(|line| !line.is_empty());
    full.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
