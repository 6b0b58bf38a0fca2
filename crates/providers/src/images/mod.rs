//! The store of images: what sandboxes' read-only layers are made from, and how they get there.
//!
//! One folder, shared by every process on this data directory:
//!
//! ```text
//! layers/<short>/         an unpacked tree; <short> is 20 base32 characters of its sha256
//! locks/<short>           holds the full id; a shared flock on it keeps the layer
//! manifests/<sha256>.json an image: its layers and settings
//! refs/<name>             the digest that a name means; `/` is written `+`
//! host.json               what the image `host` was last made from
//! tmp/<word>, <word>.lock work under way, swept once its lock is free
//! lock                    flock: shared to read several of these, exclusive to change any
//! ```
//!
//! Everything appears by rename, layer before manifest before name, and goes in the other order:
//! a process that dies anywhere leaves nothing that can be seen but a folder in `tmp`.
//!
//! **Whether an image is in use** is asked of two things that cannot lie after a crash: flocks (a
//! provider holds one from [`ImageStore::hold`] until the layers are mounted; they die with their
//! process) and the mount tables of running processes (a sandbox's overlay names its layers there
//! for as long as it lives, whoever made it). Nothing is recorded per sandbox, so nothing can leak.
//!
//! An image of several layers has a tree for each, with whiteouts as an overlay wants them; each is
//! unpacked once, whoever wants it (`making/<short>` is locked meanwhile).

mod builtin;
mod directory;
mod fault;
mod import;
mod import_saved;
mod input;
mod install;
mod limits;
mod locks;
mod manifest;
mod mounted;
mod naming;
pub mod oci;
mod prune;
mod publish;
mod pull;
mod reference;
mod registry;
mod remove;
mod root;
mod sealed;
mod store;
mod sweep;
mod unpack;

pub use import::{Naming, Progress};
pub use limits::Limits;
pub use locks::Hold;
pub use protocol::worker::{ImageInfo, Prune, Pruned, PullEvent, PullProgress};
pub use pull::Pull;
pub use reference::ImageName;
pub use registry::{Patience, Registry, check_registries};
pub use store::{ImageStore, Options, PullPolicy};
pub use unpack::{Unpacked, unpack_above, unpack_archive};
