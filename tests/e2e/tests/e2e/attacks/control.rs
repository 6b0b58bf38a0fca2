//! The attacker without the wall that is looked at: in namespaces made for the occasion, which end
//! with it. Never bare on the host.

use std::fs::File;
use std::process::{Command, Output};

use super::program::{Verdict, attacker, verdicts};

/// Where an attack works, to show that the test would see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// As an unprivileged user that is root of a user namespace of its own, unfiltered.
    User,
    /// As real root, in every other namespace but that of users.
    Root,
    /// Nowhere, or nowhere that is harmless; and why.
    Nowhere(&'static str),
}

/// A wall that a control can also do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    Nothing,
    Network,
    Processes,
}

const SPACES: [&str; 6] = ["--mount", "--ipc", "--uts", "--cgroup", "--time", "--fork"];
/// A /tmp of its own with the program in it, which comes by stdin: its folder may be closed to the
/// user it runs as. It inherits a descriptor of the host's root, whatever the tests' own parent left
/// open or not.
const SCRIPT: &str = "mount -t tmpfs none /tmp && cat >/tmp/attacker && \
    chmod 755 /tmp/attacker && exec /tmp/attacker \"$@\" </dev/null 3</";

impl Control {
    /// Runs attacks; `None` where there is no control.
    pub fn run(self, attacks: &[&str]) -> Option<Vec<Verdict>> {
        self.run_without(Without::Nothing, attacks)
    }

    /// Runs attacks in the host's network, or among its processes.
    pub fn run_without(self, wall: Without, attacks: &[&str]) -> Option<Vec<Verdict>> {
        let mut command = match self {
            Self::User => {
                let mut user = Command::new("setpriv");
                user.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
                user.args(["unshare", "--user", "--map-root-user"]);
                user
            }
            Self::Root => {
                let mut root = Command::new("unshare");
                root.args(["--propagation", "private"]);
                root
            }
            Self::Nowhere(_) => return None,
        };
        command.args(SPACES);
        if wall != Without::Network {
            command.arg("--net");
        }
        if wall != Without::Processes {
            command.args(["--pid", "--kill-child", "--mount-proc"]);
        }
        command.args(["sh", "-c", SCRIPT, "sh"]).args(attacks);
        command.stdin(File::open(attacker()).expect("it was built")).current_dir("/");
        let Output { stdout, stderr, .. } =
            command.output().expect("unshare and setpriv are there");
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        let seen = verdicts(&out);
        assert!(!seen.is_empty(), "{attacks:?} did not run as {self:?}: {out}{err}");
        Some(seen)
    }
}

/// Controls need a root that may do what the sandbox may not.
pub fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: without root there are no controls, and no uid ranges");
    }
    root
}
