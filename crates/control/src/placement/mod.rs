//! Where a sandbox goes: a pure function of the demand and of what is known about workers.

mod choose;
#[cfg(test)]
mod tests;

pub(crate) use choose::{Demand, NoPlace, View, choose};
