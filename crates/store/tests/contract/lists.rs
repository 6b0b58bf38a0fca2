//! The list that a client sees.

use store::{Limits, ListFilter, Store};
use types::clock::Clock;
use types::{Sandbox, SandboxState, TenantId};

use crate::bed::{Bed, Walk, at, id, ids, sandbox, to};

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
    let tenant = || Some(TenantId::parse("ours").unwrap());
    let ours =
        |after, limit| ListFilter { tenant: tenant(), after, limit, ..ListFilter::default() };
    let all = store.sandboxes(ours(None, None)).await.unwrap();
    assert_eq!(ids(&all), [8, 10, 4, 6, 0, 2].map(id));
    let next = ours(Some((at(1), id(4))), Some(2));
    assert_eq!(ids(&store.sandboxes(next).await.unwrap()), [6, 0].map(id));
    let nobody =
        ListFilter { tenant: Some(TenantId::parse("nobody").unwrap()), ..ListFilter::default() };
    assert_eq!(store.sandboxes(nobody).await.unwrap(), []);
}

pub async fn bug_50_every_filter_finds_what_a_look_at_all_finds(bed: &dyn Bed) {
    let store = bed.open();
    let mut walk = Walk(0xf11);
    let mut all = Vec::new();
    let one_of = |walk: &mut Walk, words: &[&str]| {
        words[usize::try_from(walk.below(words.len() as u64)).unwrap()].to_owned()
    };
    for number in 0..160 {
        let tenant = one_of(&mut walk, &["", "ours", "theirs"]);
        let new = Sandbox {
            created_at: at(walk.below(30)),
            tenant_id: TenantId::parse(tenant).ok(),
            provider: one_of(&mut walk, &["mock", "native"]),
            metadata: (0..walk.below(3))
                .map(|_| (one_of(&mut walk, &["a", "b"]), one_of(&mut walk, &["", "x", "\u{e4}"])))
                .collect(),
            ..sandbox(number)
        };
        store.insert_sandbox(new, Limits::default(), None).await.unwrap();
        let state = SandboxState::ALL[walk.below(7) as usize];
        store.change_sandbox(id(number), to(state)).await.unwrap();
        all.push(store.sandbox(id(number)).await.unwrap().unwrap());
    }
    all.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
    let mut found = 0;
    for round in 0..600 {
        let states = match walk.below(4) {
            0 => Vec::new(),
            1 => vec![SandboxState::Destroyed],
            2 => vec![SandboxState::ALL[walk.below(7) as usize]],
            _ => vec![SandboxState::Running, SandboxState::Unhealthy],
        };
        let some = |walk: &mut Walk| walk.below(2) == 0;
        let filter = ListFilter {
            tenant: some(&mut walk).then(|| TenantId::parse("ours").unwrap()),
            provider: some(&mut walk).then(|| one_of(&mut walk, &["mock", "native"])),
            states,
            labels: (0..walk.below(3))
                .map(|_| (one_of(&mut walk, &["a", "b"]), one_of(&mut walk, &["", "x", "\u{e4}"])))
                .collect(),
            after: some(&mut walk).then(|| (at(walk.below(30)), id(walk.below(160)))),
            limit: some(&mut walk).then(|| walk.below(20) as u32),
        };
        let beyond = |s: &Sandbox| match &filter.after {
            None => true,
            Some((time, id)) => s.created_at < *time || (s.created_at == *time && s.id > *id),
        };
        let limit = filter.limit.map_or(usize::MAX, |n| n as usize);
        let wanted = all.iter().filter(|s| beyond(s) && filter.lets_through(s));
        let wanted: Vec<_> = wanted.take(limit).map(|s| s.id.clone()).collect();
        let got = ids(&store.sandboxes(filter.clone()).await.unwrap());
        assert_eq!(got, wanted, "round {round}: {filter:?}");
        found += got.len();
    }
    assert!(found > 500, "the walk finds too little: {found}");
    // What is forgotten leaves no label behind.
    bed.clock().advance(std::time::Duration::from_secs(3600));
    while store.purge_sandboxes(bed.clock().wall(), 7).await.unwrap() > 0 {}
    for key in ["a", "b"] {
        for value in ["", "x", "\u{e4}"] {
            let ended = ListFilter {
                states: vec![SandboxState::Destroyed],
                labels: vec![(key.to_owned(), value.to_owned())],
                ..ListFilter::default()
            };
            assert_eq!(store.sandboxes(ended).await.unwrap(), []);
        }
    }
}
