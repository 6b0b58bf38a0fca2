//! Properties of the choice.

use proptest::prelude::*;
use types::WorkerId;

use super::{Demand, NoPlace, View, choose};

#[derive(Debug, Clone)]
struct Worker {
    id: WorkerId,
    online: bool,
    fresh: bool,
    reachable: bool,
    providers: Option<Vec<String>>,
    active: u64,
    max: u64,
}

impl Worker {
    fn view(&self) -> View<'_> {
        View {
            id: &self.id,
            online: self.online,
            fresh: self.fresh,
            reachable: self.reachable,
            providers: self.providers.as_deref(),
            active: self.active,
            max_sandboxes: self.max,
        }
    }

    fn eligible(&self, provider: &str) -> bool {
        let offers = self
            .providers
            .as_ref()
            .is_none_or(|p| p.is_empty() || p.iter().any(|n| n.eq_ignore_ascii_case(provider)));
        let room = self.max == 0 || self.active < self.max;
        self.online && self.fresh && self.reachable && offers && room
    }
}

fn workers() -> impl Strategy<Value = Vec<Worker>> {
    let names = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["Mock".to_owned()])),
        Just(Some(vec!["native".to_owned(), "mock".to_owned()])),
        Just(Some(vec!["docker".to_owned()])),
    ];
    let one = (0u8..4, 0u8..4, 0u8..4, names, 0u64..5, 0u64..5);
    prop::collection::vec(one, 0..8).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(i, (online, fresh, reachable, providers, active, max))| Worker {
                // `local` lies in the middle of the alphabet, as BUG-15 needs it.
                id: WorkerId::parse(["a", "b", "local", "m", "x", "y", "z", "zz"][i]).unwrap(),
                online: online > 0,
                fresh: fresh > 0,
                reachable: reachable > 0,
                providers,
                active,
                max,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn the_chosen_one_is_eligible_and_none_is_better(
        workers in workers(),
        order in any::<prop::sample::Index>(),
    ) {
        let local = WorkerId::parse("local").unwrap();
        let demand = Demand { provider: "mock", local: &local };
        let chosen = choose(demand, workers.iter().map(Worker::view)).cloned();
        let eligible: Vec<_> = workers.iter().filter(|w| w.eligible("mock")).collect();
        match &chosen {
            Err(_) => prop_assert!(eligible.is_empty()),
            Ok(id) => {
                let it = eligible.iter().find(|w| w.id == *id);
                prop_assert!(it.is_some(), "{id} is not eligible");
                let active = it.map_or(0, |w| w.active);
                for other in &eligible {
                    prop_assert!(active <= other.active);
                    if other.active == active && other.id == local {
                        prop_assert_eq!(id, &local);
                    }
                }
            }
        }
        // The order in which workers are looked at never matters.
        let mut turned = workers.clone();
        if !turned.is_empty() {
            let by = order.index(turned.len());
            turned.rotate_left(by);
        }
        prop_assert_eq!(choose(demand, turned.iter().map(Worker::view)).cloned(), chosen);
    }
}

#[test]
fn the_closest_miss_is_named() {
    let local = WorkerId::parse("local").unwrap();
    let demand = Demand { provider: "mock", local: &local };
    let worker = |providers: &[&str], active, max, online| Worker {
        id: local.clone(),
        online,
        fresh: true,
        reachable: true,
        providers: Some(providers.iter().map(|p| (*p).to_owned()).collect()),
        active,
        max,
    };
    let miss = |w: &[Worker]| choose(demand, w.iter().map(Worker::view)).err();
    assert_eq!(miss(&[]), Some(NoPlace::NoWorker));
    assert_eq!(miss(&[worker(&["mock"], 0, 0, false)]), Some(NoPlace::NoWorker));
    assert_eq!(miss(&[worker(&["docker"], 0, 0, true)]), Some(NoPlace::NoProvider));
    let full = worker(&["mock"], 2, 2, true);
    assert_eq!(miss(&[worker(&["docker"], 0, 0, true), full]), Some(NoPlace::AllFull));
}
