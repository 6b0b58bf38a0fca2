//! The system call filter: an allow-list, compiled once into a binary search tree.

mod compile;
mod rules;
mod shrink;

/// The program that every sandbox loads.
pub(crate) fn program() -> Vec<libc::sock_filter> {
    compile::compile(&rules::rules())
}
