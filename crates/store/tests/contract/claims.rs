//! Names and keys: what a repeat of a spawn finds.

use std::time::Duration;

use store::{Change, Earlier, InsertOutcome, Limits, NameOf, SpawnKey};
use types::clock::Clock;
use types::{EndedReason, Sandbox, SandboxName, SandboxState, TenantId};

use crate::bed::{Bed, at, id, owner, sandbox, to};

const NONE: Limits = Limits { max_sandboxes: 0, max_per_owner: 0 };
const HOUR: Duration = Duration::from_secs(3600);

fn key(key: &str, request: &str) -> Option<SpawnKey> {
    Some(SpawnKey { key: key.into(), request: request.into(), since: at(0) })
}

fn named(name: &str, number: u64) -> Sandbox {
    Sandbox { name: Some(SandboxName::parse(name).unwrap()), ..sandbox(number) }
}

fn earlier(sandbox: Sandbox, found: bool) -> InsertOutcome {
    InsertOutcome::Earlier(Box::new(Earlier { sandbox, found }))
}

pub async fn a_key_finds_its_spawn_until_it_is_forgotten(bed: &dyn Bed) {
    let store = bed.open();
    let insert = |n, k| store.insert_sandbox(sandbox(n), NONE, k);
    assert_eq!(store.earlier_spawn(key("a", "x"), None).await.unwrap(), None);
    assert_eq!(insert(1, key("a", "x")).await.unwrap(), InsertOutcome::Inserted);
    let first = store.sandbox(id(1)).await.unwrap().unwrap();
    assert!(first.keyed);
    assert_eq!(insert(2, key("a", "x")).await.unwrap(), earlier(first.clone(), false));
    assert_eq!(insert(2, key("a", "y")).await.unwrap(), InsertOutcome::KeyReused);
    assert_eq!(insert(2, key("b", "y")).await.unwrap(), InsertOutcome::Inserted);
    assert!(store.sandbox(id(2)).await.unwrap().unwrap().keyed);
    // However full it is, and after its end, and by another process.
    store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
    store.close().await;
    let store = bed.open();
    let one = Limits { max_sandboxes: 1, max_per_owner: 1 };
    let gone = Sandbox { state: SandboxState::Destroyed, ..first };
    let again = store.insert_sandbox(sandbox(3), one, key("a", "x")).await.unwrap();
    assert_eq!(again, earlier(gone.clone(), false));
    let seen = store.earlier_spawn(key("a", "x"), None).await.unwrap();
    assert_eq!(seen, Some(earlier(gone, false)));
    assert_eq!(
        store.earlier_spawn(key("a", "z"), None).await.unwrap(),
        Some(InsertOutcome::KeyReused)
    );
    // Once it is old it is another one's.
    let late = Some(SpawnKey { since: at(1), ..key("a", "z").unwrap() });
    assert_eq!(store.earlier_spawn(late.clone(), None).await.unwrap(), None);
    bed.clock().advance(HOUR);
    let outcome = store.insert_sandbox(sandbox(3), NONE, late.clone()).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Inserted);
    let outcome = store.insert_sandbox(sandbox(4), NONE, late).await.unwrap();
    assert!(matches!(outcome, InsertOutcome::Earlier(e) if e.sandbox.id == id(3)));
    assert!(!store.sandbox(id(1)).await.unwrap().unwrap().keyed);
}

pub async fn a_key_whose_spawn_failed_is_free(bed: &dyn Bed) {
    let store = bed.open();
    for (n, reason) in [(1, EndedReason::SpawnFailed), (2, EndedReason::Unanswered)] {
        let outcome = store.insert_sandbox(sandbox(n), NONE, key("a", "x")).await.unwrap();
        assert_eq!(outcome, InsertOutcome::Inserted);
        let end = Change { ended_reason: Some(reason), ..to(SandboxState::Destroying) };
        store.change_sandbox(id(n), end).await.unwrap();
        assert_eq!(store.earlier_spawn(key("a", "x"), None).await.unwrap(), None);
    }
    let outcome = store.insert_sandbox(sandbox(3), NONE, key("a", "other")).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Inserted);
    store.change_sandbox(id(2), to(SandboxState::Destroyed)).await.unwrap();
    assert!(!store.sandbox(id(2)).await.unwrap().unwrap().keyed);
}

pub async fn a_name_is_held_by_one_living_sandbox_of_an_owner(bed: &dyn Bed) {
    let store = bed.open();
    let insert = |s| store.insert_sandbox(s, NONE, None);
    assert_eq!(insert(named("n", 1)).await.unwrap(), InsertOutcome::Inserted);
    assert_eq!(insert(named("n", 2)).await.unwrap(), earlier(named("n", 1), true));
    assert_eq!(insert(named("N", 2)).await.unwrap(), InsertOutcome::Inserted);
    let theirs = Sandbox { owner_id: owner("n"), ..named("n", 3) };
    assert_eq!(insert(theirs.clone()).await.unwrap(), InsertOutcome::Inserted);
    let tenant = Some(TenantId::parse("n").unwrap());
    let tenants = Sandbox { tenant_id: tenant, ..named("n", 4) };
    assert_eq!(insert(tenants).await.unwrap(), InsertOutcome::Inserted);
    let again = Sandbox { id: id(5), ..theirs.clone() };
    assert_eq!(insert(again).await.unwrap(), earlier(theirs, true));
    // One that ends, is dead or has expired gives it up.
    for (n, state) in
        [(1, SandboxState::Destroying), (10, SandboxState::Error), (11, SandboxState::Destroyed)]
    {
        store.change_sandbox(id(n), to(state)).await.unwrap();
        let next = if n == 1 { 10 } else { n + 1 };
        let outcome = insert(named("n", next)).await.unwrap();
        assert_eq!(outcome, InsertOutcome::Inserted, "{state:?}");
    }
    bed.clock().advance(HOUR);
    assert_eq!(insert(named("n", 20)).await.unwrap(), InsertOutcome::Inserted);
    // Those that gave it up and live on do not get it back.
    let name = NameOf { name: SandboxName::parse("n").unwrap(), owner: None, tenant: None };
    let running = Change { state: Some(SandboxState::Running), ..Change::default() };
    store.change_sandbox(id(10), running).await.unwrap();
    store.change_sandbox(id(20), to(SandboxState::Destroyed)).await.unwrap();
    assert_eq!(store.earlier_spawn(None, Some(name)).await.unwrap(), None);
}

pub async fn a_name_and_a_key_go_together(bed: &dyn Bed) {
    let store = bed.open();
    let insert = |s, k| store.insert_sandbox(s, NONE, k);
    insert(named("n", 1), None).await.unwrap();
    // The first is found by its name; then the key says the same, whatever becomes of it.
    for end in [false, true] {
        if end {
            store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
        }
        match insert(named("n", 2), key("a", "x")).await.unwrap() {
            InsertOutcome::Earlier(e) => assert!(e.found && e.sandbox.id == id(1), "{e:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(insert(named("n", 2), key("a", "y")).await.unwrap(), InsertOutcome::KeyReused);
    assert_eq!(insert(named("n", 2), key("b", "x")).await.unwrap(), InsertOutcome::Inserted);
    assert!(store.sandbox(id(1)).await.unwrap().unwrap().keyed);
}

pub async fn of_many_at_once_one_is_made(bed: &dyn Bed) {
    let store = bed.open();
    let mut asking = Vec::new();
    for n in 0..64 {
        let store = store.clone();
        asking.push(tokio::spawn(async move {
            let by_name = store.insert_sandbox(named("n", n), NONE, None).await.unwrap();
            let by_key = store.insert_sandbox(sandbox(100 + n), NONE, key("k", "x")).await;
            [by_name, by_key.unwrap()]
        }));
    }
    let mut made = [0, 0];
    for asked in asking {
        for (n, outcome) in asked.await.unwrap().into_iter().enumerate() {
            match outcome {
                InsertOutcome::Inserted => made[n] += 1,
                InsertOutcome::Earlier(e) => assert_eq!(e.found, n == 0),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(made, [1, 1]);
    assert_eq!(store.counts(None).await.unwrap().total, 2);
}

pub async fn bug_32_keys_and_what_they_hold_are_purged(bed: &dyn Bed) {
    let store = bed.open();
    for n in 1..=5 {
        store.insert_sandbox(sandbox(n), NONE, key(&n.to_string(), "x")).await.unwrap();
        store.change_sandbox(id(n), to(SandboxState::Destroyed)).await.unwrap();
    }
    bed.clock().advance(HOUR);
    let now = bed.clock().wall();
    assert_eq!(store.purge_sandboxes(now, 10).await.unwrap(), 0, "their keys remember them");
    assert_eq!(store.purge_spawn_keys(at(0), 10).await.unwrap(), 0);
    assert_eq!(store.purge_spawn_keys(now, 2).await.unwrap(), 2);
    assert_eq!(store.purge_sandboxes(now, 10).await.unwrap(), 2);
    assert_eq!(store.purge_spawn_keys(now, 10).await.unwrap(), 3);
    assert_eq!(store.purge_sandboxes(now, 10).await.unwrap(), 3);
    let outcome = store.insert_sandbox(sandbox(1), NONE, key("1", "y")).await.unwrap();
    assert_eq!(outcome, InsertOutcome::Inserted);
}
