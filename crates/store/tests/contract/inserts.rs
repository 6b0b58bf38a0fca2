//! Inserting, limits and the counters.

use std::collections::BTreeMap;

use store::{Counts, InsertOutcome, Limits, ListFilter, Store};
use types::{EndedReason, Sandbox, SandboxState, TenantId};

use crate::bed::{Bed, Walk, id, owner, sandbox, to};

const NONE: Limits = Limits { max_sandboxes: 0, max_per_owner: 0 };

pub async fn a_sandbox_comes_back_as_it_was(bed: &dyn Bed) {
    let store = bed.open();
    let full = Sandbox {
        owner_id: owner("me"),
        tenant_id: Some(TenantId::parse("ours").unwrap()),
        vm_id: Some("vm-1".into()),
        generation: 7,
        metadata: BTreeMap::from([("a".into(), "ä \"\u{0}'".into()), ("b".into(), "".into())]),
        preview_domain: Some("example.org".into()),
        ended_reason: Some(EndedReason::Oom),
        state: SandboxState::Error,
        answered: false,
        ..sandbox(1)
    };
    for wanted in [full, sandbox(2)] {
        let outcome = store.insert_sandbox(wanted.clone(), NONE, None).await.unwrap();
        assert_eq!(outcome, InsertOutcome::Inserted);
        assert_eq!(store.sandbox(wanted.id.clone()).await.unwrap(), Some(wanted));
    }
    assert_eq!(store.sandbox(id(3)).await.unwrap(), None);
}

pub async fn bug_31_a_taken_id_is_reported(bed: &dyn Bed) {
    let store = bed.open();
    store.insert_sandbox(sandbox(1), NONE, None).await.unwrap();
    let other = Sandbox { image: "other".into(), ..sandbox(1) };
    let outcome = store.insert_sandbox(other.clone(), NONE, None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Duplicate);
    // Also where there would be no room for it, and after its end.
    let one = Limits { max_sandboxes: 1, max_per_owner: 0 };
    let outcome = store.insert_sandbox(other.clone(), one, None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Duplicate);
    store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
    assert_eq!(store.insert_sandbox(other, NONE, None).await.unwrap(), InsertOutcome::Duplicate);
    assert_eq!(store.sandbox(id(1)).await.unwrap().unwrap().image, "host");
    assert_eq!(store.counts(None).await.unwrap().total, 0);
}

pub async fn limits_hold_under_concurrent_inserts(bed: &dyn Bed) {
    let store = bed.open();
    let limits = Limits { max_sandboxes: 30, max_per_owner: 10 };
    let mut inserters = Vec::new();
    for i in 0..64 {
        let store = store.clone();
        inserters.push(tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for j in 0..4 {
                let owner_id = owner(["a", "b", "c", "d"][j % 4]);
                let new = Sandbox { owner_id, ..sandbox(i * 4 + j as u64) };
                outcomes.push(store.insert_sandbox(new, limits, None).await.unwrap());
            }
            outcomes
        }));
    }
    let mut inserted = 0;
    for inserter in inserters {
        for outcome in inserter.await.unwrap() {
            match outcome {
                InsertOutcome::Inserted => inserted += 1,
                InsertOutcome::Full(counts) => assert_eq!(counts.total, 30),
                InsertOutcome::OwnerFull(counts) => assert_eq!(counts.owner, 10),
                InsertOutcome::Duplicate | InsertOutcome::Earlier(_) | InsertOutcome::KeyReused => {
                    panic!("no id was used twice, nor any name or key")
                }
            }
        }
    }
    assert_eq!(inserted, 30);
    let live = store.sandboxes(ListFilter::default()).await.unwrap();
    assert_eq!(live.len(), 30);
    for name in ["a", "b", "c", "d"] {
        let theirs = live.iter().filter(|s| s.owner_id == owner(name)).count();
        assert!(theirs <= 10, "{name} has {theirs}");
    }
}

pub async fn a_limit_counts_only_what_lives(bed: &dyn Bed) {
    let store = bed.open();
    let limits = Limits { max_sandboxes: 3, max_per_owner: 1 };
    let mine = |number| Sandbox { owner_id: owner("me"), ..sandbox(number) };
    assert_eq!(store.insert_sandbox(mine(1), limits, None).await.unwrap(), InsertOutcome::Inserted);
    let counts = Counts { total: 1, owner: 1 };
    let outcome = store.insert_sandbox(mine(2), limits, None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::OwnerFull(counts));
    assert_eq!(store.sandbox(id(2)).await.unwrap(), None);
    // Nobody's sandboxes share no limit.
    for number in [3, 4] {
        let outcome = store.insert_sandbox(sandbox(number), limits, None).await.unwrap();
        assert_eq!(outcome, InsertOutcome::Inserted);
    }
    let outcome = store.insert_sandbox(sandbox(5), limits, None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Full(Counts { total: 3, owner: 0 }));
    // One that is being destroyed still lives; a destroyed one makes room.
    store.change_sandbox(id(1), to(SandboxState::Destroying)).await.unwrap();
    let outcome = store.insert_sandbox(mine(2), limits, None).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Full(Counts { total: 3, owner: 1 }));
    store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
    assert_eq!(store.insert_sandbox(mine(2), limits, None).await.unwrap(), InsertOutcome::Inserted);
}

pub async fn counters_equal_a_count_after_a_random_walk(bed: &dyn Bed) {
    let store = bed.open();
    let mut walk = Walk(0x5eed);
    for step in 0..600 {
        match walk.below(10) {
            0..=4 => {
                let owner_id = ["", "a", "b"].get(walk.below(3) as usize).copied();
                let new = Sandbox {
                    owner_id: owner_id.filter(|name| !name.is_empty()).and_then(owner),
                    provider: ["mock", "native"][walk.below(2) as usize].into(),
                    state: SandboxState::ALL[walk.below(7) as usize],
                    ..sandbox(walk.below(150))
                };
                store.insert_sandbox(new, NONE, None).await.unwrap();
            }
            5..=8 => {
                let next = SandboxState::ALL[walk.below(7) as usize];
                store.change_sandbox(id(walk.below(150)), to(next)).await.unwrap();
            }
            _ => {
                bed.clock().advance(std::time::Duration::from_secs(1));
                let now = crate::bed::at(step);
                store.purge_sandboxes(now, 3).await.unwrap();
            }
        }
        if step % 20 == 0 {
            counters_are_right(&*store).await;
        }
    }
    counters_are_right(&*store).await;
}

async fn counters_are_right(store: &dyn Store) {
    let live = store.sandboxes(ListFilter::default()).await.unwrap();
    for name in ["a", "b", "nobody"] {
        let theirs = live.iter().filter(|s| s.owner_id == owner(name)).count() as u64;
        let wanted = Counts { total: live.len() as u64, owner: theirs };
        assert_eq!(store.counts(owner(name)).await.unwrap(), wanted, "{name}");
    }
    assert_eq!(store.counts(None).await.unwrap().owner, 0);
    for name in ["mock", "native", "docker"] {
        let there = live.iter().filter(|s| s.provider == name).count() as u64;
        assert_eq!(store.count_by_provider(name.into()).await.unwrap(), there, "{name}");
    }
}
