//! What the native and the mock provider share: the spawner process, cgroups, uid ranges, process
//! identities and the agents' sockets.

mod cgroups;
mod claims;
mod core;
mod facts;
mod farewell;
mod identity;
mod launcher;
mod mountinfo;
mod process;
mod residue;
mod socket;

pub(crate) use self::cgroups::{CgroupTree, Hierarchies, SandboxCgroups};
pub(crate) use self::claims::{Claims, DEFAULT_CLAIMS_DIR, has_full_uid_map};
pub(crate) use self::core::Core;
pub(crate) use self::facts::{Facts, Writable};
pub(crate) use self::farewell::{ask_to_end, sockets_in};
pub(crate) use self::identity::Identity;
pub(crate) use self::launcher::Launcher;
pub(crate) use self::mountinfo::mounts;
pub(crate) use self::process::{ProcessId, boot_id};
pub(crate) use self::residue::end_all;
pub use self::socket::AgentSocket;
pub(crate) use self::socket::{SOCKET, connect};
