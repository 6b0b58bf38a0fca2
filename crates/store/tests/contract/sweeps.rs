//! What background tasks and adoption ask for.

use std::time::Duration;

use store::Limits;
use types::{Sandbox, SandboxState, WorkerId};

use crate::bed::{Bed, at, id, ids, sandbox, to};

pub async fn due_are_those_whose_time_is_up_oldest_first(bed: &dyn Bed) {
    let store = bed.open();
    let due = [
        (1, 30, SandboxState::Running),
        (2, 10, SandboxState::Creating),
        (3, 20, SandboxState::Unhealthy),
        (4, 10, SandboxState::Error),
        (5, 5, SandboxState::Destroying),
        (6, 5, SandboxState::Destroyed),
        (7, 100, SandboxState::Running),
        (8, 15, SandboxState::Expired),
    ];
    for (number, expires, state) in due {
        let new = Sandbox { expires_at: at(expires), state, ..sandbox(number) };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
    }
    let now = |seconds, limit| store.due_sandboxes(at(seconds), limit);
    assert_eq!(ids(&now(99, 100).await.unwrap()), [2, 4, 8, 3, 1].map(id));
    assert_eq!(ids(&now(99, 2).await.unwrap()), [2, 4].map(id));
    assert_eq!(ids(&now(15, 100).await.unwrap()), [2, 4, 8].map(id));
    assert_eq!(now(9, 100).await.unwrap(), []);
}

pub async fn unfinished_is_what_a_crash_left(bed: &dyn Bed) {
    let store = bed.open();
    let rows = [
        (1, 50, SandboxState::Destroying, true),
        (2, 10, SandboxState::Creating, false),
        (3, 20, SandboxState::Running, false),
        (4, 30, SandboxState::Running, true),
        (5, 40, SandboxState::Creating, true),
        (6, 60, SandboxState::Creating, false),
        (7, 5, SandboxState::Destroyed, false),
        (8, 70, SandboxState::Destroying, false),
    ];
    for (number, created, state, answered) in rows {
        let new = Sandbox { created_at: at(created), state, answered, ..sandbox(number) };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
    }
    let left = |seconds, limit| store.unfinished_sandboxes(at(seconds), limit);
    // Oldest first; one that is being destroyed whenever it was made.
    assert_eq!(ids(&left(55, 100).await.unwrap()), [2, 3, 5, 1, 8].map(id));
    assert_eq!(ids(&left(55, 3).await.unwrap()), [2, 3, 5].map(id));
    assert_eq!(ids(&left(0, 100).await.unwrap()), [1, 8].map(id));
    let answered = store::Change { answered: Some(true), ..Default::default() };
    store.change_sandbox(id(3), answered).await.unwrap();
    store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
    assert_eq!(ids(&left(55, 100).await.unwrap()), [2, 5, 8].map(id));
}

pub async fn a_worker_has_its_own(bed: &dyn Bed) {
    let store = bed.open();
    let one = WorkerId::parse("one").unwrap();
    for (number, state) in
        [(1, SandboxState::Running), (2, SandboxState::Destroyed), (3, SandboxState::Destroying)]
    {
        let new = Sandbox { worker_id: one.clone(), state, ..sandbox(number) };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
    }
    store.insert_sandbox(sandbox(4), Limits::default(), None).await.unwrap();
    let mut theirs = ids(&store.sandboxes_of_worker(one).await.unwrap());
    theirs.sort();
    assert_eq!(theirs, [1, 3].map(id));
    let nobody = WorkerId::parse("nobody").unwrap();
    assert_eq!(store.sandboxes_of_worker(nobody).await.unwrap(), []);
}

pub async fn bug_32_destroyed_rows_are_purged_in_batches(bed: &dyn Bed) {
    let store = bed.open();
    for number in 0..8 {
        store.insert_sandbox(sandbox(number), Limits::default(), None).await.unwrap();
    }
    // Two end at each of three times; 6 is only on its way, 7 lives.
    for number in 0..6 {
        if number > 0 && number % 2 == 0 {
            bed.clock().advance(Duration::from_secs(100));
        }
        store.change_sandbox(id(number), to(SandboxState::Destroyed)).await.unwrap();
    }
    store.change_sandbox(id(6), to(SandboxState::Destroying)).await.unwrap();
    let purge = |seconds, limit| store.purge_sandboxes(at(seconds), limit);
    assert_eq!(purge(0, 100).await.unwrap(), 0);
    assert_eq!(purge(150, 3).await.unwrap(), 3);
    assert_eq!(purge(150, 3).await.unwrap(), 1);
    assert_eq!(purge(150, 3).await.unwrap(), 0);
    for number in 0..8 {
        let there = store.sandbox(id(number)).await.unwrap().is_some();
        assert_eq!(there, number >= 4, "{number}");
    }
    assert_eq!(purge(1_000_000, 100).await.unwrap(), 2);
    assert_eq!(store.counts(None).await.unwrap().total, 2);
}
