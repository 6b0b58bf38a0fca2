//! How calls to an agent fail.

use protocol::agent::{AgentError, AgentErrorCode};
use types::{ErrorCode, Fault};

/// Why a connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the agent closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(String),
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
    #[error("the agent did not answer in time")]
    Silent,
    /// This side hung up: the sandbox is being destroyed or the server stops.
    #[error("the connection was closed")]
    HungUp,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    /// The agent said no.
    #[error("the agent refused: {}", .0.message)]
    Agent(AgentError),
    /// Nobody knows how it went.
    #[error("the connection to the agent was lost")]
    Lost(#[source] Lost),
    /// The agent could not be reached.
    #[error("connecting to the agent")]
    Unreachable(#[source] Fault),
    /// It went wrong on this side, in words fit for clients.
    #[error("calling the agent")]
    Fault(#[source] Fault),
}

impl From<Fault> for GuestError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The longest message taken over from an agent.
const MAX_MESSAGE: usize = 1024;

/// What an agent said, as clients see it. The words come from inside and are bounded.
pub(crate) fn fault_of(error: AgentError) -> Fault {
    let code = match error.code {
        AgentErrorCode::BadRequest => ErrorCode::BadRequest,
        AgentErrorCode::Unsupported | AgentErrorCode::Denied => ErrorCode::Unprocessable,
        AgentErrorCode::FileNotFound => ErrorCode::FileNotFound,
        AgentErrorCode::NoSuchExec => ErrorCode::NotFound,
        AgentErrorCode::NoSuchUser => ErrorCode::UserNotFound,
        AgentErrorCode::NotAFile => ErrorCode::NotAFile,
        AgentErrorCode::NotADirectory => ErrorCode::NotADirectory,
        AgentErrorCode::Conflict => ErrorCode::Conflict,
        AgentErrorCode::DiskFull => ErrorCode::DiskFull,
        AgentErrorCode::NoResources => ErrorCode::ResourceLimit,
        AgentErrorCode::TooLarge => ErrorCode::TooLarge,
        AgentErrorCode::Cancelled => ErrorCode::Unavailable,
        AgentErrorCode::Internal | AgentErrorCode::Unknown => ErrorCode::InternalError,
    };
    let clean: String =
        error.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    Fault::new(code, if clean.is_empty() { "the sandbox refused".to_owned() } else { clean })
}
