//! A process named for good: by pid and start time, so that a reused pid is never mistaken for it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

/// What /proc/PID/stat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub state: char,
    pub parent: i32,
    pub start_time: u64,
}

impl Stat {
    /// A zombie is dead: its parent may be slow to reap.
    pub fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// `None`: there is no such process. Reads procfs, which waits for no disk.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&head(pid, "stat")?)
}

/// The first kilobyte of a file in a process's directory, all that is needed of those that come
/// here: read in one go, since each spawn looks at one process and each start at all.
fn head(pid: i32, file: &str) -> Option<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(format!("/proc/{pid}/{file}")).ok()?;
    let mut text = [0; 1024];
    let len = file.read(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text[..len]).into_owned())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name is in brackets and may hold anything, brackets too.
    let mut rest = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    let start_time = rest.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_time })
}

/// Its real, effective, saved and file system uid, as the host counts. Not the owner of its
/// directory in /proc, who is root where a process may not be dumped. One that is dead and waits
/// to be reaped, by whoever is slow to, has none.
pub(crate) fn uids(pid: i32) -> Vec<u32> {
    let status = head(pid, "status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("");
    if field("State:").trim_start().starts_with(['Z', 'X']) {
        return Vec::new();
    }
    let line = field("Uid:");
    line.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// Bytes of memory that a process occupies; shared ones count for each. `None`: it is gone.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

impl ProcessId {
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start_time == self.start_time && !s.is_dead())
    }

    /// A descriptor of the process itself; `None` if it is gone.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|p| p.as_raw_pid() > 1) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Asked after opening: the pid can't have changed hands since.
        match stat(self.pid) {
            Some(s) if s.start_time == self.start_time => Ok(Some(fd)),
            _ => Ok(None),
        }
    }

    /// Sends SIGKILL to this process and to no other.
    pub fn kill(self) -> io::Result<()> {
        match self.open()? {
            Some(fd) => kill_by_fd(&fd),
            None => Ok(()),
        }
    }

    /// Kills it and waits for its end. `Err` with `TimedOut` if that takes longer.
    pub async fn kill_within(self, limit: Duration) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        kill_by_fd(&fd)?;
        ended(fd, limit).await
    }

    /// Waits for its end. `Err` with `TimedOut` if that takes longer.
    pub async fn ended_within(self, limit: Duration) -> io::Result<()> {
        let Some(fd) = self.open()? else { return Ok(()) };
        ended(fd, limit).await
    }

    /// Waits for its end, with one descriptor; then how it ended, where the kernel tells.
    pub async fn ended(self) -> io::Result<Option<ExitStatus>> {
        let Some(fd) = self.open()? else { return Ok(None) };
        let fd = readable(fd).await?;
        // The status is told only once its parent has reaped it; a parent that is slow to do so
        // does not hold up the news.
        for _ in 0..STATUS_TRIES {
            if let Some(status) = exit_status(fd.get_ref()) {
                return Ok(Some(status));
            }
            tokio::time::sleep(STATUS_PAUSE).await;
        }
        Ok(None)
    }
}

const STATUS_TRIES: u32 = 20;
const STATUS_PAUSE: Duration = Duration::from_millis(5);

async fn ended(fd: OwnedFd, limit: Duration) -> io::Result<()> {
    match tokio::time::timeout(limit, readable(fd)).await {
        Ok(done) => done.map(drop),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A pidfd becomes readable when its process ends.
async fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its one descriptor open until the AsyncFd is dropped.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    drop(fd.readable().await?);
    Ok(fd)
}

fn kill_by_fd(fd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(fd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// How a process ended, as wait(2) encodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExitStatus(pub i32);

impl ExitStatus {
    pub fn was_killed(self) -> bool {
        self.0 & 0x7f == libc::SIGKILL
    }

    /// It returned by itself, as an agent does at its deadline.
    pub fn returned(self) -> bool {
        self.0 & 0x7f == 0
    }
}

/// `struct pidfd_info` of linux/pidfd.h, its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = 0xC000_FF0B | ((size_of::<PidfdInfo>() as u64) << 16);

/// The exit status of an ended process that is not our child: since Linux 6.15, once it is reaped.
fn exit_status(fd: &OwnedFd) -> Option<ExitStatus> {
    use std::os::fd::AsRawFd;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: the request's size field is that of `info`, which is ours, writable and lives until
    // the call returns; the kernel writes no more than that size.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), PIDFD_GET_INFO, &mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(ExitStatus(info.exit_code))
}

/// Changes with each boot of the host.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let text = "7 (a) b) R 3 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let s = parse_stat(text).unwrap();
        assert_eq!((s.state, s.parent, s.start_time), ('R', 3, 98765));
    }

    #[tokio::test]
    async fn it_kills_the_one_it_names_and_no_other() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = stat(pid).unwrap().start_time;
        let (me, other) =
            (ProcessId { pid, start_time }, ProcessId { pid, start_time: start_time + 1 });
        assert!(me.is_alive() && !other.is_alive());
        other.kill().unwrap();
        other.ended_within(Duration::from_secs(5)).await.unwrap();
        assert!(me.is_alive(), "a reused pid must not be signalled");
        me.kill().unwrap();
        me.ended_within(Duration::from_secs(5)).await.unwrap();
        assert!(!me.is_alive(), "a zombie is dead");
        child.wait().unwrap();
        assert!(ProcessId { pid: 1, start_time: 0 }.open().unwrap().is_none());
    }
}
