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
//! Pulling from registries is not here yet; it will add layers through the same doors.

mod builtin;
mod directory;
mod fault;
mod import;
mod input;
mod limits;
mod locks;
mod manifest;
mod mounted;
mod reference;
mod remove;
mod root;
mod store;
mod sweep;
mod unpack;

pub use import::Progress;
pub use limits::Limits;
pub use locks::Hold;
pub use manifest::ImageInfo;
pub use reference::ImageName;
pub use store::{ImageStore, Options};
pub use unpack::{Unpacked, unpack_archive};
