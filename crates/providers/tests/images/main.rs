//! The store of images as its users see it: real directories, real and hostile archives, several
//! processes, crashes.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod basics;
mod formats;
mod host;
mod hostile;
mod killed;
mod layers;
mod layout;
mod processes;
mod pulls;
mod served;
mod support;
