//! The list that a client sees.

use store::{Limits, ListFilter, Store};
use types::{Sandbox, SandboxState, TenantId};

use crate::bed::{Bed, at, id, ids, sandbox, to};

/// Twelve sandboxes, four at each of three times, inserted in no order.
async fn fill(store: &dyn Store) {
    for number in [7, 2, 11, 4, 9, 0, 5, 10, 1, 8, 3, 6] {
        let tenant = ["ours", "theirs"][usize::try_from(number).unwrap() % 2];
        let new = Sandbox {
            created_at: at(number / 4),
            tenant_id: Some(TenantId::parse(tenant).unwrap()),
            ..sandbox(number)
        };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
    }
}

const NEWEST_FIRST: [u64; 12] = [8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3];

pub async fn newest_first_and_by_id_among_equals(bed: &dyn Bed) {
    let store = bed.open();
    assert_eq!(store.sandboxes(ListFilter::default()).await.unwrap(), []);
    fill(&*store).await;
    let all = store.sandboxes(ListFilter::default()).await.unwrap();
    assert_eq!(ids(&all), NEWEST_FIRST.map(id));
    let some = ListFilter { limit: Some(5), ..ListFilter::default() };
    assert_eq!(store.sandboxes(some).await.unwrap(), all[..5]);
    let none = ListFilter { limit: Some(0), ..ListFilter::default() };
    assert_eq!(store.sandboxes(none).await.unwrap(), []);
    // What is destroyed is not listed; what is on its way there still is.
    store.change_sandbox(id(9), to(SandboxState::Destroyed)).await.unwrap();
    store.change_sandbox(id(10), to(SandboxState::Destroying)).await.unwrap();
    let left = ids(&store.sandboxes(ListFilter::default()).await.unwrap());
    assert_eq!(left.len(), 11);
    assert!(!left.contains(&id(9)) && left.contains(&id(10)));
}

pub async fn pages_neither_repeat_nor_skip(bed: &dyn Bed) {
    let store = bed.open();
    fill(&*store).await;
    for limit in 1..=5 {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let filter = ListFilter { after, limit: Some(limit), ..ListFilter::default() };
            let page = store.sandboxes(filter).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some((last.created_at, last.id.clone()));
            seen.extend(ids(&page));
        }
        assert_eq!(seen, NEWEST_FIRST.map(id), "in pages of {limit}");
    }
}

pub async fn a_tenant_sees_its_own(bed: &dyn Bed) {
    let store = bed.open();
    fill(&*store).await;
    store.insert_sandbox(sandbox(99), Limits::default(), None).await.unwrap();
    let ours =
        |after, limit| ListFilter { tenant: Some(TenantId::parse("ours").unwrap()), after, limit };
    let all = store.sandboxes(ours(None, None)).await.unwrap();
    assert_eq!(ids(&all), [8, 10, 4, 6, 0, 2].map(id));
    let next = ours(Some((at(1), id(4))), Some(2));
    assert_eq!(ids(&store.sandboxes(next).await.unwrap()), [6, 0].map(id));
    let nobody =
        ListFilter { tenant: Some(TenantId::parse("nobody").unwrap()), ..ListFilter::default() };
    assert_eq!(store.sandboxes(nobody).await.unwrap(), []);
}
