//! How the server and a worker are reached, and what they log.

use std::time::Duration;

use crate::config::section::{choice, section};

section! {
    /// `server.*`
    Server {
        /// Empty until resolved: loopback without keys, else every address.
        host: String,
        port: u16 = 7423,
        preview_domain: String = "localhost".to_owned(),
        cors_allowed_origins: Vec<String> = vec!["*".to_owned()],
        /// Of a JSON request.
        max_body_bytes: usize = 64 * 1024 * 1024,
    }
}

section! {
    /// `worker.*`
    Worker {
        /// Empty: `local` on SQLite.
        id: String,
        control_plane_url: String = "http://localhost:7423".to_owned(),
        listen_addr: String,
        preview_domain: String,
        heartbeat_interval: Duration = Duration::from_secs(30),
        shutdown_timeout: Duration = Duration::from_secs(10),
        rpc_tls: RpcTls,
    }
}

section! {
    /// `worker.rpc_tls.*`
    RpcTls {
        enabled: bool,
        server_cert_file: String,
        server_key_file: String,
        client_ca_file: String,
        ca_file: String,
        client_cert_file: String,
        client_key_file: String,
        server_name: String,
        insecure_skip_verify: bool,
    }
}

section! {
    /// `logging.*`
    Logging {
        level: LogLevel = LogLevel::Info,
        format: LogFormat = LogFormat::Json,
    }
}

choice! {
    /// The least severe event that is logged.
    LogLevel {
        Trace = "trace",
        Debug = "debug",
        Info = "info",
        Warn = "warn" | "warning",
        Error = "error",
    }
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

choice! {
    /// How events are written.
    LogFormat {
        Json = "json",
        Pretty = "pretty" | "text" | "console",
    }
}
