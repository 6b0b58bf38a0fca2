//! Admission says what a spawn would meet, and does nothing.

use std::time::Duration;

use control::SpawnInput;
use types::OwnerId;

use crate::support::{System, config, input};

const KNOWN_KEYS: [&str; 8] = [
    "allowed",
    "queueable",
    "reason",
    "active_sandboxes",
    "max_sandboxes",
    "active_owner_sandboxes",
    "max_owner_sandboxes",
    "max_ttl",
];

#[tokio::test(start_paused = true)]
async fn each_reason_in_its_order_and_bug_12_no_other_key() {
    let mut c = config();
    c.defaults.max_sandboxes = 2;
    c.defaults.max_sandboxes_per_owner = 1;
    let s = System::with(c).await;
    let by = |o: &str| SpawnInput { owner: Some(OwnerId::parse(o).unwrap()), ..input() };
    let ask = |i: SpawnInput| async {
        let told = s.control.admission(&s.ctx, i).await.unwrap();
        let json = serde_json::to_value(&told).unwrap();
        for key in json.as_object().unwrap().keys() {
            assert!(KNOWN_KEYS.contains(&key.as_str()), "{key}");
        }
        assert_eq!(told.allowed, told.reason.is_none());
        assert!(!told.queueable);
        assert_eq!(told.max_ttl.as_deref(), Some("24h0m0s"));
        told
    };
    assert!(ask(by("a")).await.allowed);
    assert!(s.store.state().rows.is_empty());
    s.control.spawn(&s.ctx, by("a")).await.unwrap();
    let told = ask(by("a")).await;
    assert_eq!(told.reason.as_deref(), Some("max_sandboxes_per_owner"));
    assert_eq!((told.active_owner_sandboxes, told.max_owner_sandboxes), (Some(1), Some(1)));
    assert!(ask(by("b")).await.allowed);
    s.control.spawn(&s.ctx, by("b")).await.unwrap();
    let told = ask(by("a")).await;
    assert_eq!(told.reason.as_deref(), Some("max_sandboxes"), "judged before the owner's");
    assert_eq!((told.active_sandboxes, told.max_sandboxes), (2, 2));
    let unknown = SpawnInput { provider: Some("nope".to_owned()), ..by("a") };
    assert_eq!(ask(unknown.clone()).await.reason.as_deref(), Some("worker_unavailable"));
    let long = SpawnInput { ttl: Some(Duration::from_secs(25 * 3600)), ..unknown };
    assert_eq!(ask(long).await.reason.as_deref(), Some("max_ttl"), "judged first");
}

/// Whatever admission says, a spawn at that moment does.
#[tokio::test(start_paused = true)]
async fn it_agrees_with_spawn() {
    let mut c = config();
    c.defaults.max_sandboxes = 1;
    let s = System::with(c).await;
    for provider in [None, Some("mock"), Some("nope")] {
        for ttl in [None, Some(1), Some(25 * 3600)] {
            let wish = SpawnInput {
                provider: provider.map(str::to_owned),
                ttl: ttl.map(Duration::from_secs),
                ..input()
            };
            let told = s.control.admission(&s.ctx, wish.clone()).await.unwrap();
            let made = s.control.spawn(&s.ctx, wish).await;
            assert_eq!(told.allowed, made.is_ok(), "{told:?}");
            if let Ok(made) = made {
                let again = s.control.admission(&s.ctx, input()).await.unwrap();
                assert_eq!(again.reason.as_deref(), Some("max_sandboxes"));
                s.control.destroy(&s.ctx, made.id.as_str(), None).await.unwrap();
            }
        }
    }
}
