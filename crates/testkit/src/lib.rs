//! What tests share: the built binary as a process, a bare HTTP client, waiting with a deadline,
//! and a look at what a test leaves behind on the host.

mod binary;
mod footprint;
mod http;
mod images;
mod process;
mod slate;
mod system;
mod wait;

pub use binary::stacyvm;
pub use footprint::Footprint;
pub use http::{Reply, exchange};
pub use images::busybox_rootfs;
pub use process::Process;
pub use slate::{Leftover, leftovers};
pub use system::{Running, System};
pub use wait::wait_for;
