//! Whether a spawn would be let in, and what it then gets. Does nothing, reserves nothing.

mod decide;
mod demand;

pub(crate) use decide::{full, no_place, owner_full};
pub(crate) use demand::{Wish, check_ttl};
