//! Out of memory: whether the kernel killed for it, and whom it should pick.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::descendants;

/// The kernel's count of OOM kills in this sandbox.
pub(crate) struct OomKills {
    events: Option<OwnedFd>,
}

impl OomKills {
    pub(crate) fn new(events: Option<OwnedFd>) -> Self {
        Self { events }
    }

    /// Kills so far; `None` where that can't be known.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut bytes = [0; 512];
        let n = rustix::io::pread(self.events.as_ref()?, &mut bytes, 0).ok()?;
        parse(&String::from_utf8_lossy(&bytes[..n]))
    }
}

/// The line `oom_kill N`, the same in v1's `memory.oom_control` and v2's `memory.events`.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Raises a command's `oom_score_adj`. Fails until its execve: up to then it shares the agent's
/// memory, and the kernel would raise the agent's own with it.
pub(crate) fn raise(pid: i32, score: i32) -> Result<(), Errno> {
    if !descendants::has_executed(pid) {
        return Err(Errno::AGAIN);
    }
    let path = format!("/proc/{pid}/oom_score_adj");
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, score.to_string().as_bytes()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_understood() {
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse("low 0\noom 4\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("low 0\n"), None);
    }
}
