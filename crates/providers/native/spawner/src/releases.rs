//! Ended sandboxes whose cgroups are to be removed: tried until nothing is left in them.

use protocol::spawner::Reply;
use types::clock::{Clock, SystemClock};

use crate::cgroups::Cgroups;

/// Between two tries: what was killed needs a moment. Doubled up to the longest.
const FIRST_PAUSE: u64 = 500_000;
const LONGEST_PAUSE: u64 = 50_000_000;
/// Nanoseconds until it is given up; whoever asked may ask again.
const LIMIT: u64 = 10_000_000_000;

pub(crate) struct Release {
    /// The number of the order.
    pub n: u64,
    pub id: String,
    pub slot: Option<u32>,
    /// What is answered when it is done.
    pub reply: Reply,
    due: u64,
    pause: u64,
    until: u64,
}

/// A finished one.
pub(crate) struct Done {
    pub n: u64,
    pub reply: Reply,
    /// Free again.
    pub slot: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Releases {
    waiting: Vec<Release>,
}

fn now() -> u64 {
    SystemClock.boot().nanos()
}

impl Releases {
    /// Kills what is left and removes its cgroups, at once if that can be.
    pub(crate) fn start(
        &mut self,
        (n, id, slot): (u64, String, Option<u32>),
        reply: Reply,
        cgroups: &Cgroups,
    ) -> Option<Done> {
        let pause = FIRST_PAUSE;
        let release = Release { n, id, slot, reply, due: 0, pause, until: now() + LIMIT };
        self.attempt(release, cgroups)
    }

    fn attempt(&mut self, mut release: Release, cgroups: &Cgroups) -> Option<Done> {
        let now = now();
        let (n, slot) = (release.n, release.slot);
        let failed = |errno| {
            let reply = Reply::Failed { stage: "remove its cgroups".into(), errno };
            Some(Done { n, reply, slot: None })
        };
        match cgroups.remove(&release.id) {
            Ok(true) => Some(Done { n, reply: release.reply, slot }),
            Ok(false) if now >= release.until => failed(libc::EBUSY),
            Ok(false) => {
                cgroups.kill(&release.id);
                release.due = now + release.pause;
                release.pause = (release.pause * 2).min(LONGEST_PAUSE);
                self.waiting.push(release);
                None
            }
            Err(errno) => failed(errno.raw_os_error()),
        }
    }

    /// Those that are due and now done.
    pub(crate) fn go_on(&mut self, cgroups: &Cgroups) -> Vec<Done> {
        let now = now();
        let (due, later) =
            std::mem::take(&mut self.waiting).into_iter().partition(|r| r.due <= now);
        self.waiting = later;
        let due: Vec<Release> = due;
        due.into_iter().filter_map(|release| self.attempt(release, cgroups)).collect()
    }

    /// Nanoseconds until the next try.
    pub(crate) fn next(&self) -> Option<u64> {
        let next = self.waiting.iter().map(|r| r.due).min()?;
        Some(next.saturating_sub(now()))
    }
}
