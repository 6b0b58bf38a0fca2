//! REST bodies, as contract.md names them. Only shapes: meaning lives in `control`.

mod exec;
mod files;
mod images;
mod sandboxes;
mod session;
mod system;

pub use exec::*;
pub use files::*;
pub use images::*;
pub use sandboxes::*;
pub use session::*;
pub use system::*;

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorBody {
    pub code: String,
    pub message: String,
}

/// `{"status": "…"}`, the answer of most mutations.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    pub status: String,
}
