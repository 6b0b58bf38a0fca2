//! The states of a sandbox and the reasons for its end.

use serde::{Deserialize, Serialize};

/// The public state of a sandbox.
///
/// ```text
/// creating ──> running ──> destroying ──> destroyed
///     │           │  └──> error (its PID 1 is gone) ──> destroying
///     │           └─────> unhealthy (its worker is) ──> running | expired
///     └──> destroyed (never answered)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    Creating,
    Running,
    Unhealthy,
    Expired,
    Destroying,
    Destroyed,
    Error,
}

impl SandboxState {
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Running,
        Self::Unhealthy,
        Self::Expired,
        Self::Destroying,
        Self::Destroyed,
        Self::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Expired => "expired",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Destroyed)
    }

    /// Whether a sandbox may go from `self` to `next`. Staying is always allowed but at the end.
    pub fn may_become(self, next: Self) -> bool {
        use SandboxState::*;
        match self {
            Creating => true,
            Running | Unhealthy | Error | Expired => next != Creating,
            Destroying => matches!(next, Destroying | Destroyed),
            Destroyed => false,
        }
    }
}

/// Why a sandbox ended or cannot be used; kept with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedReason {
    /// A caller destroyed it.
    Destroyed,
    /// Its ttl was over.
    Expired,
    /// The kernel killed its agent for memory.
    Oom,
    /// Its agent ended without being asked.
    Crashed,
    /// The host was rebooted.
    HostRebooted,
    /// The spawn did not succeed.
    SpawnFailed,
    /// The client was gone before the spawn could be answered.
    Unanswered,
    /// Its worker no longer has it.
    Lost,
}

impl EndedReason {
    pub const ALL: [Self; 8] = [
        Self::Destroyed,
        Self::Expired,
        Self::Oom,
        Self::Crashed,
        Self::HostRebooted,
        Self::SpawnFailed,
        Self::Unanswered,
        Self::Lost,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Expired => "expired",
            Self::Oom => "oom",
            Self::Crashed => "crashed",
            Self::HostRebooted => "host_rebooted",
            Self::SpawnFailed => "spawn_failed",
            Self::Unanswered => "unanswered",
            Self::Lost => "lost",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }

    /// How a client reads it: "sandbox sb-… <this>".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Destroyed => "was destroyed",
            Self::Expired => "has expired",
            Self::Oom => "ran out of memory",
            Self::Crashed => "crashed",
            Self::HostRebooted => "ended when its host was rebooted",
            Self::SpawnFailed => "could not be spawned",
            Self::Unanswered => "was given up: its spawn was never answered",
            Self::Lost => "is no longer known to its worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for s in SandboxState::ALL {
            assert_eq!(SandboxState::parse(s.as_str()), Some(s));
        }
        for r in EndedReason::ALL {
            assert_eq!(EndedReason::parse(r.as_str()), Some(r));
        }
    }

    #[test]
    fn the_end_is_final_and_nothing_is_born_twice() {
        for s in SandboxState::ALL {
            assert!(!SandboxState::Destroyed.may_become(s));
            if s != SandboxState::Creating {
                assert!(!s.may_become(SandboxState::Creating));
            }
        }
        assert!(!SandboxState::Destroying.may_become(SandboxState::Running));
        assert!(SandboxState::Unhealthy.may_become(SandboxState::Running));
    }
}
