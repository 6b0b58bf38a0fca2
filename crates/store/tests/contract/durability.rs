//! What stays when a store is closed and opened again.

use store::{Limits, StoreError};
use types::{Sandbox, SandboxState};

use crate::bed::{Bed, id, owner, sandbox, to};

pub async fn what_was_answered_is_there_after_reopening(bed: &dyn Bed) {
    let store = bed.open();
    let installation = store.installation_id().to_owned();
    assert_eq!(installation.len(), 32);
    assert!(installation.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
    for number in 0..10 {
        let new = Sandbox { owner_id: owner("me"), ..sandbox(number) };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
    }
    store.change_sandbox(id(3), to(SandboxState::Destroyed)).await.unwrap();
    store.close().await;

    let store = bed.open();
    assert_eq!(store.installation_id(), installation);
    let counts = store.counts(owner("me")).await.unwrap();
    assert_eq!((counts.total, counts.owner), (9, 9));
    let third = store.sandbox(id(3)).await.unwrap().unwrap();
    assert_eq!(third.state, SandboxState::Destroyed);
    store.close().await;
}

pub async fn a_record_reads_the_same_however_large_and_after_reopening(bed: &dyn Bed) {
    let store = bed.open();
    let mut wanted = Vec::new();
    for (number, label) in [(1, 10), (2, 10_000)] {
        let metadata = [("k".to_owned(), "v".repeat(label))].into();
        let new = Sandbox { state: SandboxState::Creating, metadata, ..sandbox(number) };
        store.insert_sandbox(new.clone(), Limits::default(), None).await.unwrap();
        assert_eq!(store.sandbox(id(number)).await.unwrap(), Some(new.clone()));
        store.change_sandbox(id(number), to(SandboxState::Running)).await.unwrap();
        let changed = Sandbox { state: SandboxState::Running, ..new };
        assert_eq!(store.sandbox(id(number)).await.unwrap(), Some(changed.clone()));
        wanted.push(changed);
    }
    store.close().await;
    let store = bed.open();
    for record in wanted {
        assert_eq!(store.sandbox(record.id.clone()).await.unwrap(), Some(record));
    }
    store.close().await;
}

pub async fn closed_means_busy(bed: &dyn Bed) {
    let store = bed.open();
    store.insert_sandbox(sandbox(1), Limits::default(), None).await.unwrap();
    store.close().await;
    store.close().await;
    let write = store.insert_sandbox(sandbox(1), Limits::default(), None).await;
    assert!(matches!(write, Err(StoreError::Busy(_))), "{write:?}");
    let read = store.sandbox(id(1)).await;
    assert!(matches!(read, Err(StoreError::Busy(_))), "{read:?}");
    assert!(matches!(store.check().await, Err(StoreError::Busy(_))));
}

pub async fn it_can_be_checked(bed: &dyn Bed) {
    let store = bed.open();
    store.check().await.unwrap();
    store.check().await.unwrap();
}
