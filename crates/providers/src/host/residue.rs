//! Ends every process of a sandbox, whatever of it is still known.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::process::stat;
use super::{ProcessId, SandboxCgroups};

/// How long killed processes may take to be gone; one that waits for a disk takes longer, and the
/// destroy is then repeated.
const END_LIMIT: Duration = Duration::from_secs(8);
/// How long the killed are waited for before the next look.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Kills and waits until none is left. `root`: its PID 1, where it has no PID namespace of its own
/// (that of one that has takes all others with it, and is killed first).
pub(crate) async fn end_all(
    cgroups: SandboxCgroups,
    root: Option<ProcessId>,
    by_tree: bool,
) -> io::Result<()> {
    let rounds = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let groups = cgroups.clone();
            let left = spawn_blocking(move || kill_round(&groups, root, by_tree));
            let left = left.await.map_err(io::Error::other)??;
            if left.is_empty() {
                return Ok(());
            }
            // Until they are gone, which is news; who came meanwhile is seen in the next round.
            let gone = async {
                for process in left {
                    process.ended_within(END_LIMIT).await?;
                }
                Ok::<_, io::Error>(())
            };
            if let Ok(gone) = tokio::time::timeout(pause, gone).await {
                gone?;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::time::timeout(END_LIMIT, rounds)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Kills what lives; who that was.
fn kill_round(
    cgroups: &SandboxCgroups,
    root: Option<ProcessId>,
    by_tree: bool,
) -> io::Result<Vec<ProcessId>> {
    let root = root.filter(|r| r.is_alive());
    // Children first: once their parent is gone they can no longer be told from the host's.
    let mut left = root.filter(|_| by_tree).map(descendants).unwrap_or_default();
    if left.is_empty() {
        cgroups.kill();
        left = cgroups.processes();
        left.extend(root.filter(|r| !left.contains(r)));
    }
    for process in &left {
        process.kill()?;
    }
    Ok(left)
}

/// Everything below a process, itself left out. The agent adopts orphans, so that nothing of an
/// unconfined sandbox is elsewhere.
fn descendants(root: ProcessId) -> Vec<ProcessId> {
    let mut children: HashMap<i32, Vec<ProcessId>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok());
        if let Some(pid) = pid
            && let Some(s) = stat(pid)
        {
            let process = ProcessId { pid, start_time: s.start_time };
            children.entry(s.parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        let below = children.remove(&parent.pid).unwrap_or_default();
        open.extend(&below);
        found.extend(below);
    }
    found.retain(|p| p.is_alive());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn a_tree_without_cgroups_is_ended_to_its_leaves() {
        let script = "sleep 60 & echo $!; exec sleep 60";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut text = [0; 32];
        let len = out.read(&mut text).unwrap();
        let leaf: i32 = std::str::from_utf8(&text[..len]).unwrap().trim().parse().unwrap();
        let id = |pid| ProcessId { pid, start_time: stat(pid).unwrap().start_time };
        let (leaf, root) = (id(leaf), id(i32::try_from(child.id()).unwrap()));
        end_all(SandboxCgroups::default(), Some(root), true).await.unwrap();
        assert!(!leaf.is_alive() && !root.is_alive());
        child.wait().unwrap();
    }
}
