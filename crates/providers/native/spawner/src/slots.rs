//! Slots: a range of ids, with namespaces and a process that is prepared to be a sandbox in them.
//! These take longest to make, so some are kept ready.
//!
//! Namespaces are used once; the range of a slot is handed out again when its sandbox has been
//! released.

use std::collections::{BTreeSet, VecDeque};

use crate::machine::Machine;
use crate::namespaces::Namespaces;
use crate::prepared::Prepared;
use crate::step::Outcome;
use crate::sys;

/// Whether slots are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    None,
    /// The pool is not full.
    Some,
    /// The pool is nearly empty, or somebody waits.
    Urgent,
}

pub(crate) struct Slots {
    /// How many there are, and how many to keep ready.
    count: u32,
    pool: usize,
    /// In use or ready.
    taken: BTreeSet<u32>,
    namespaces: Namespaces,
    ready: VecDeque<Prepared>,
}

impl Slots {
    pub(crate) fn new(machine: &Machine, pool: u32, used: &[u32]) -> Self {
        let count = machine.ids.map_or(u32::MAX, |ids| ids.count);
        Self {
            count,
            pool: if machine.unconfined { 0 } else { pool as usize },
            taken: used.iter().copied().collect(),
            namespaces: Namespaces::default(),
            ready: VecDeque::new(),
        }
    }

    /// A prepared process with its slot; `wanted` decides between any and a certain one.
    pub(crate) fn take(&mut self, wanted: Option<u32>) -> Option<Prepared> {
        loop {
            let certain = |number| self.ready.iter().position(|slot| slot.number == number);
            let at = wanted.map_or(Some(0), certain)?;
            let prepared = self.ready.remove(at)?;
            if prepared.waits() {
                return Some(prepared);
            }
            self.taken.remove(&prepared.number);
        }
    }

    /// It is in use: by a sandbox of an earlier spawner.
    pub(crate) fn adopt(&mut self, number: u32) {
        self.taken.insert(number);
    }

    /// Its sandbox is gone.
    pub(crate) fn free(&mut self, number: u32) {
        self.taken.remove(&number);
    }

    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How pressing it is to make more, with so many waiting for one.
    pub(crate) fn shortage(&self, waiting: usize) -> Shortage {
        let (ready, room) = (self.ready.len(), self.taken.len() < self.count as usize);
        if waiting > 0 || room && ready < self.pool / 2 {
            Shortage::Urgent
        } else if room && ready < self.pool {
            Shortage::Some
        } else {
            Shortage::None
        }
    }

    /// Makes one more, the certain one that is wanted if that is free. `false`: there is none to
    /// be had.
    pub(crate) fn add(&mut self, wanted: Option<u32>, machine: &Machine) -> Outcome<bool> {
        let free = |n: &u32| *n < self.count && !self.taken.contains(n);
        let Some(number) = wanted.filter(free).or_else(|| (0..self.count).find(free)) else {
            return Ok(false);
        };
        let slot = self.namespaces.make(number, machine)?;
        self.ready.push_back(Prepared::start(slot, machine)?);
        self.taken.insert(number);
        Ok(true)
    }

    /// Ends what is prepared.
    pub(crate) fn end(&mut self) {
        // Told all at once, then waited for.
        let ready: Vec<i32> = self.ready.drain(..).map(Prepared::end).collect();
        ready.into_iter().for_each(sys::wait_for);
    }
}
