//! Error codes that clients see, and the error that carries one between floors.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A public error code. The HTTP status of each is chosen in
/// `server`, nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    SandboxDead,
    Timeout,
    TooLarge,
    RangeNotSatisfiable,
    FileNotFound,
    NotAFile,
    NotADirectory,
    DiskFull,
    ImageNotFound,
    UserNotFound,
    Unprocessable,
    ResourceLimit,
    Unavailable,
    InternalError,
}

impl ErrorCode {
    /// Every code, for tests that walk them.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::SandboxDead,
        Self::Timeout,
        Self::TooLarge,
        Self::RangeNotSatisfiable,
        Self::FileNotFound,
        Self::NotAFile,
        Self::NotADirectory,
        Self::DiskFull,
        Self::ImageNotFound,
        Self::UserNotFound,
        Self::Unprocessable,
        Self::ResourceLimit,
        Self::Unavailable,
        Self::InternalError,
    ];

    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Conflict => "CONFLICT",
            Self::SandboxDead => "SANDBOX_DEAD",
            Self::Timeout => "TIMEOUT",
            Self::TooLarge => "TOO_LARGE",
            Self::RangeNotSatisfiable => "RANGE_NOT_SATISFIABLE",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::NotAFile => "NOT_A_FILE",
            Self::NotADirectory => "NOT_A_DIRECTORY",
            Self::DiskFull => "DISK_FULL",
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::UserNotFound => "USER_NOT_FOUND",
            Self::Unprocessable => "UNPROCESSABLE",
            Self::ResourceLimit => "RESOURCE_LIMIT",
            Self::Unavailable => "UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure that may reach a client: a code, words fit for the public, and a private cause.
///
/// `message` never holds a host path, SQL or an inside address; what would goes into `source`,
/// which is logged where the fault is handled and never sent.
#[derive(Debug)]
pub struct Fault {
    pub code: ErrorCode,
    pub message: String,
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// Attaches the private cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that a repeat may succeed after so long; clients are told in `Retry-After`.
    pub fn retry_after(self, after: Duration) -> Self {
        let source = self.source;
        Self { source: Some(Box::new(RetryAfter { after, source })), ..self }
    }

    /// After how long a repeat may succeed, if that was said.
    pub fn retries_after(&self) -> Option<Duration> {
        self.source.as_ref()?.downcast_ref::<RetryAfter>().map(|r| r.after)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// Something broke that the caller can't mend. `what` says what was being done.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorCode::InternalError, what)
    }

    pub fn dead(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::SandboxDead, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|e| e.as_ref() as &(dyn Error + 'static))
    }
}

/// What [`Fault::retry_after`] leaves beside the private cause.
#[derive(Debug)]
struct RetryAfter {
    after: Duration,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worth a retry after {:?}", self.after)
    }
}

impl Error for RetryAfter {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|e| e.as_ref() as &(dyn Error + 'static))
    }
}
