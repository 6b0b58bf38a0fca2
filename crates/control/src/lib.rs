//! Decides: who may have which sandbox, where, and until when. Knows no provider, serves no HTTP.
//!
//! The store holds intent, workers report fact, background tasks close the difference. A request
//! may wait for work; it never owns it.

mod admission;
mod background;
mod config;
mod control;
mod fault;
mod images;
mod links;
mod placement;
mod providers;
mod records;
mod sandboxes;
mod start;
mod state;
mod workers;

pub use background::TaskRun;
pub use config::{Context, ControlConfig, Defaults, HistoryRetention, ImageRetention};
pub use control::Control;
pub use providers::Readiness;
pub use sandboxes::{
    Captured, Destroyed, ExecInput, ExecMode, Finding, Obtained, RepeatKey, SpawnInput,
};
pub use store::{CANCELLED, ExecEnd, ExecKind, ExecPage, ExecRecord};
pub use workers::WorkerView;
