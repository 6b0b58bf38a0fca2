//! The worker registry.

use store::WorkerRecord;
use types::WorkerId;

use crate::bed::{Bed, at};

fn worker(name: &str) -> WorkerRecord {
    WorkerRecord {
        id: WorkerId::parse(name).unwrap(),
        hostname: "host".into(),
        status: "online".into(),
        providers: Some(vec!["mock".into(), "native".into()]),
        capabilities: None,
        capacity: Some(serde_json::json!({"max_sandboxes": 5, "rpc_url": "x"})),
        last_heartbeat: at(3),
        created_at: at(1),
        updated_at: at(2),
    }
}

pub async fn an_upsert_keeps_created_at(bed: &dyn Bed) {
    let store = bed.open();
    let first = worker("one");
    assert_eq!(store.upsert_worker(first.clone()).await.unwrap(), first);
    assert_eq!(store.worker(first.id.clone()).await.unwrap(), Some(first.clone()));
    let second = WorkerRecord {
        hostname: "other".into(),
        status: "draining".into(),
        providers: None,
        capabilities: Some(vec![]),
        capacity: None,
        last_heartbeat: at(13),
        created_at: at(11),
        updated_at: at(12),
        ..first.clone()
    };
    let wanted = WorkerRecord { created_at: first.created_at, ..second.clone() };
    assert_eq!(store.upsert_worker(second).await.unwrap(), wanted);
    assert_eq!(store.worker(first.id).await.unwrap(), Some(wanted));
}

pub async fn workers_are_listed_by_id_and_deleted(bed: &dyn Bed) {
    let store = bed.open();
    for name in ["b", "c", "a"] {
        store.upsert_worker(worker(name)).await.unwrap();
    }
    assert_eq!(store.workers().await.unwrap(), ["a", "b", "c"].map(worker));
    let b = WorkerId::parse("b").unwrap();
    assert!(store.delete_worker(b.clone()).await.unwrap());
    assert!(!store.delete_worker(b.clone()).await.unwrap());
    assert_eq!(store.worker(b).await.unwrap(), None);
    assert_eq!(store.workers().await.unwrap(), ["a", "c"].map(worker));
}
