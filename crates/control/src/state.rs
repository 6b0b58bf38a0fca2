//! The public state of a sandbox: a pure function of its record and of what is known about its
//! worker. No I/O.

use types::SandboxState;

/// What is known of the worker that holds a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerFact {
    /// It can be asked.
    Reachable,
    /// No way to it, or not heard of for long.
    Away,
}

/// `due`: its ttl is over.
pub(crate) fn public(recorded: SandboxState, due: bool, worker: WorkerFact) -> SandboxState {
    use SandboxState::*;
    match recorded {
        Creating | Destroying | Destroyed => recorded,
        Running | Unhealthy | Expired | Error if due => Expired,
        Error | Expired => recorded,
        Running | Unhealthy => match worker {
            WorkerFact::Reachable => Running,
            WorkerFact::Away => Unhealthy,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_under_every_fact() {
        use SandboxState::*;
        for state in SandboxState::ALL {
            for due in [false, true] {
                for worker in [WorkerFact::Reachable, WorkerFact::Away] {
                    let shown = public(state, due, worker);
                    let wanted = match (state, due, worker) {
                        (Creating | Destroying | Destroyed, ..) => state,
                        (_, true, _) => Expired,
                        (Error | Expired, false, _) => state,
                        (_, false, WorkerFact::Reachable) => Running,
                        (_, false, WorkerFact::Away) => Unhealthy,
                    };
                    assert_eq!(shown, wanted, "{state:?} {due} {worker:?}");
                    assert!(shown == state || state.may_become(shown), "{state:?} -> {shown:?}");
                }
            }
        }
    }
}
