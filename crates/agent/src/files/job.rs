//! Long operations, cut into slices so that none holds up the other calls.

use std::os::fd::AsFd;

use protocol::agent::{Body, Channel, Event, Kind, MAX_PAYLOAD};
use rustix::io::Errno;

use super::copy::CopyJob;
use super::{DeleteJob, GlobJob, ListJob, PackJob, ReadJob, Tree};
use crate::error::Outcome;
use crate::outbox::Outbox;
use crate::sys;

/// How long one slice may take before others get their turn.
const SLICE_NANOS: u64 = 1_000_000;

pub(crate) enum Job {
    Read(ReadJob),
    List(ListJob),
    Glob(GlobJob),
    Delete(DeleteJob),
    Copy(CopyJob),
    Pack(Box<PackJob>),
}

/// What a slice came to.
pub(crate) enum Step {
    /// There is more to do.
    Again,
    /// Nothing can be done before there is room or credit.
    Wait,
    Done(Outcome<Body>),
}

impl Job {
    pub(crate) fn step(&mut self, tree: &Tree, port: &mut Port<'_>) -> Step {
        let slice = Slice::new();
        match self {
            Self::Read(job) => job.step(port, &slice),
            Self::List(job) => job.step(tree, port, &slice),
            Self::Glob(job) => job.step(tree, port, &slice),
            Self::Delete(job) => job.step(&slice),
            Self::Copy(job) => job.step(&slice),
            Self::Pack(job) => job.step(port, &slice),
        }
    }
}

/// The time of one slice.
pub(crate) struct Slice {
    until: u64,
}

impl Slice {
    pub(crate) fn new() -> Self {
        Self { until: sys::now() + SLICE_NANOS }
    }

    pub(crate) fn is_over(&self) -> bool {
        sys::now() >= self.until
    }
}

/// Where a job sends what it finds.
pub(crate) struct Port<'a> {
    pub out: &'a mut Outbox,
    pub call: u32,
    pub credit: &'a mut u64,
}

impl Port<'_> {
    pub(crate) fn has_room(&self) -> bool {
        self.out.has_room()
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.out.json(Kind::Event, self.call, event);
    }

    /// Sends the beginning of `bytes`, and says how much; `None` when there is no room or credit.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Option<usize> {
        let credit = usize::try_from(*self.credit).unwrap_or(usize::MAX);
        let len = bytes.len().min(MAX_PAYLOAD).min(credit);
        if !self.out.has_room() || len == 0 {
            return None;
        }
        self.out.frame(Kind::Data, Channel::Out, self.call, &bytes[..len]);
        *self.credit -= len as u64;
        Some(len)
    }

    /// Sends a piece of a file; `None` when there is no room or credit.
    pub(crate) fn data_from(&mut self, fd: impl AsFd, max: usize) -> Result<Option<usize>, Errno> {
        let max = max.min(usize::try_from(*self.credit).unwrap_or(usize::MAX));
        if !self.out.has_room() || max == 0 {
            return Ok(None);
        }
        let got = self.out.data_from(fd, Channel::Out, self.call, max)?;
        *self.credit -= got as u64;
        Ok(Some(got))
    }
}
