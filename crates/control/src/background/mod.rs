//! What runs without being asked. Every task takes no input, is idempotent, does bounded work, is
//! woken by timer or signal, and reports its last run.

mod compare;
mod driver;
mod tasks;

pub use driver::TaskRun;

pub(crate) use compare::compare;
pub(crate) use driver::{Background, Next, drive_tasks};
