//! Messages of the exec WebSocket, `/sandboxes/{id}/exec/ws`.

use serde::{Deserialize, Serialize};

/// What a client says. The first message is a `start`, which has the fields of an exec request too,
/// or an `attach`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientWord {
    /// `start`, `attach`, `stdin`, `close_stdin`, `resize` or `signal`. Absent in the first message:
    /// the simple form.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of `stdin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Of `data`: `base64`, or that of the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Of `signal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Of `resize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Of `attach`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<bool>,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerWord {
    Started {
        exec_id: String,
    },
    Output {
        stream: String,
        data: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<String>,
    },
    Gap {
        lost: u64,
    },
    Exit {
        exit_code: i32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        #[serde(default)]
        timed_out: bool,
        #[serde(default)]
        oom_killed: bool,
    },
    Error {
        code: String,
        message: String,
    },
    /// The end of the simple form.
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    #[serde(other)]
    Unknown,
}
