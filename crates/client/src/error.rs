//! Why a call did not succeed.

/// A refusal by the server, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error body.
    #[error("{message}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// The public code, upper case; empty where the answer had none.
        code: String,
        message: String,
    },
    /// Nobody listens at the address.
    #[error("cannot connect to {server}: is `stacyvm serve` running? (--server sets the address)")]
    Connect {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    /// The server took longer than this client waits.
    #[error("{server} did not answer in time")]
    TimedOut {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke while an answer was on its way.
    #[error("the connection to {server} broke")]
    Broken {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    /// What came back is not what the API promises.
    #[error("{server} sent something that is not StacyVM's API: {what}")]
    Protocol { server: String, what: String },
    /// The options cannot be used.
    #[error("{0}")]
    Options(String),
    /// What was read could not be passed on.
    #[error("cannot write what was received")]
    Output(#[source] std::io::Error),
}

impl Error {
    /// The HTTP status, where the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Protocol { .. }
            | Self::Options(_)
            | Self::Output(_) => None,
        }
    }

    /// The public code, where the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api { code, .. } => Some(code),
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Protocol { .. }
            | Self::Options(_)
            | Self::Output(_) => None,
        }
    }
}
