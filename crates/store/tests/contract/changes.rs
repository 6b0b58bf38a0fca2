//! Changing: the state machine, conditions, what is read afterwards.

use store::{Change, Limits};
use types::{EndedReason, Sandbox, SandboxState};

use crate::bed::{Bed, at, id, sandbox, to};

pub async fn every_transition_is_allowed_or_refused_as_the_table_says(bed: &dyn Bed) {
    let store = bed.open();
    let mut number = 0;
    for from in SandboxState::ALL {
        for next in SandboxState::ALL {
            number += 1;
            let before = Sandbox { state: from, ..sandbox(number) };
            store.insert_sandbox(before.clone(), Limits::default(), None).await.unwrap();
            let after = store.change_sandbox(id(number), to(next)).await.unwrap();
            let allowed = !from.is_final() && (from == next || from.may_become(next));
            let wanted = allowed.then(|| Sandbox { state: next, ..before.clone() });
            assert_eq!(after, wanted, "{from:?} to {next:?}");
            let kept = store.sandbox(id(number)).await.unwrap();
            assert_eq!(kept, Some(wanted.unwrap_or(before)), "{from:?} to {next:?}");
        }
    }
}

pub async fn conditions_must_hold(bed: &dyn Bed) {
    let store = bed.open();
    store.insert_sandbox(sandbox(1), Limits::default(), None).await.unwrap();
    let only_from = |states: &[SandboxState]| Change {
        only_from: states.to_vec(),
        ..to(SandboxState::Unhealthy)
    };
    let change = |change| store.change_sandbox(id(1), change);
    let elsewhere = only_from(&[SandboxState::Creating, SandboxState::Error]);
    assert_eq!(change(elsewhere).await.unwrap(), None);
    let older = Change { generation: Some(0), ..to(SandboxState::Unhealthy) };
    assert_eq!(change(older).await.unwrap(), None);
    let newer = Change { generation: Some(2), ..to(SandboxState::Unhealthy) };
    assert_eq!(change(newer).await.unwrap(), None);
    assert_eq!(store.sandbox(id(1)).await.unwrap(), Some(sandbox(1)));
    let both =
        Change { generation: Some(1), ..only_from(&[SandboxState::Error, SandboxState::Running]) };
    let after = change(both).await.unwrap().unwrap();
    assert_eq!(after.state, SandboxState::Unhealthy);
    assert_eq!(store.change_sandbox(id(9), Change::default()).await.unwrap(), None);
}

pub async fn fields_change_alone(bed: &dyn Bed) {
    let store = bed.open();
    let mut wanted = Sandbox { answered: false, ..sandbox(1) };
    store.insert_sandbox(wanted.clone(), Limits::default(), None).await.unwrap();
    let vm = Change { vm_id: Some("vm-1".into()), ..Change::default() };
    wanted.vm_id = Some("vm-1".into());
    assert_eq!(store.change_sandbox(id(1), vm).await.unwrap().as_ref(), Some(&wanted));
    let answered = Change { answered: Some(true), ..Change::default() };
    wanted.answered = true;
    assert_eq!(store.change_sandbox(id(1), answered).await.unwrap().as_ref(), Some(&wanted));
    let extended = Change { expires_at: Some(at(9999)), ..Change::default() };
    wanted.expires_at = at(9999);
    assert_eq!(store.change_sandbox(id(1), extended).await.unwrap().as_ref(), Some(&wanted));
    let nothing = store.change_sandbox(id(1), Change::default()).await.unwrap();
    assert_eq!(nothing.as_ref(), Some(&wanted));
    assert_eq!(store.sandbox(id(1)).await.unwrap(), Some(wanted));
    // The end is the end: not even the expiry moves.
    store.change_sandbox(id(1), to(SandboxState::Destroyed)).await.unwrap();
    let extended = Change { expires_at: Some(at(1)), ..Change::default() };
    assert_eq!(store.change_sandbox(id(1), extended).await.unwrap(), None);
}

pub async fn a_reason_is_set_once(bed: &dyn Bed) {
    let store = bed.open();
    store.insert_sandbox(sandbox(1), Limits::default(), None).await.unwrap();
    let ended = |state, reason| Change { ended_reason: Some(reason), ..to(state) };
    let first = ended(SandboxState::Error, EndedReason::Oom);
    let after = store.change_sandbox(id(1), first).await.unwrap().unwrap();
    assert_eq!(after.ended_reason, Some(EndedReason::Oom));
    let second = ended(SandboxState::Destroyed, EndedReason::Destroyed);
    let after = store.change_sandbox(id(1), second).await.unwrap().unwrap();
    assert_eq!(after.ended_reason, Some(EndedReason::Oom));
    assert_eq!(after.state, SandboxState::Destroyed);
    assert_eq!(store.sandbox(id(1)).await.unwrap(), Some(after));
}

pub async fn a_read_sees_every_answered_change(bed: &dyn Bed) {
    let store = bed.open();
    let mut clients = Vec::new();
    for client in 0..16 {
        let store = store.clone();
        clients.push(tokio::spawn(async move {
            store.insert_sandbox(sandbox(client), Limits::default(), None).await.unwrap();
            for round in 0..50 {
                let change = Change { expires_at: Some(at(round)), ..Change::default() };
                store.change_sandbox(id(client), change).await.unwrap();
                let seen = store.sandbox(id(client)).await.unwrap().unwrap();
                assert_eq!(seen.expires_at, at(round));
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}
