//! BUG-53: no message holds a host path, SQL or an inside address, whatever fails.

use std::time::Duration;

use control::{ExecInput, SpawnInput};
use types::{Fault, SandboxState};

use crate::support::{StoreAct, System, input};

const OPS: [&str; 9] = [
    "insert",
    "get",
    "list",
    "change",
    "counts",
    "count_by_provider",
    "workers",
    "worker",
    "delete_worker",
];

#[tokio::test(start_paused = true)]
async fn bug_53_whatever_the_store_says_stays_private() {
    for act in [StoreAct::Busy, StoreAct::Full, StoreAct::Broken] {
        let s = System::start().await;
        let id = s.plant("sb-x", SandboxState::Running);
        s.control.shutdown().await;
        for op in OPS {
            s.store.state().always.insert(op, act);
        }
        let (c, ctx, id) = (&s.control, &s.ctx, id.as_str());
        let mut faults: Vec<(&str, Fault)> = Vec::new();
        let mut note = |what, fault: Option<Fault>| {
            faults.push((what, fault.unwrap_or_else(|| panic!("{what} succeeded"))));
        };
        note("admission", c.admission(ctx, input()).await.err());
        note("get", c.sandbox(ctx, id).await.err());
        note("list", c.sandboxes(ctx).await.err());
        note("destroy", c.destroy(ctx, id, None).await.err());
        note("extend", c.extend(ctx, id, Duration::from_secs(5)).await.err());
        note("exec", c.exec(ctx, id, ExecInput::default()).await.err());
        note("logs", c.logs(ctx, id, 1).await.err());
        note("workers", c.workers().await.err());
        note("worker", c.worker("local").await.err());
        note("delete worker", c.delete_worker("local").await.err());
        note("provider", c.provider("mock").await.err());
        for (what, fault) in faults {
            assert!(fault.source.is_some() || what == "destroy", "{what}: the cause is kept");
            let message = fault.message.to_lowercase();
            for private in ["/var", "sqlite", "update", "insert", ".db", "127.0.0.1"] {
                assert!(!message.contains(private), "{what}: {message}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_words_are_cut_and_cleaned() {
    let s = System::start().await;
    let long = format!("a\n\u{1b}[31m{}", "x".repeat(10_000));
    let named = SpawnInput { provider: Some(long.clone()), ..input() };
    let faults = [
        s.control.spawn(&s.ctx, named).await.unwrap_err(),
        s.control.provider(&long).await.unwrap_err(),
        s.control.worker(&long).await.unwrap_err(),
        s.control.sandbox(&s.ctx, &long).await.unwrap_err(),
    ];
    for fault in faults {
        assert!(fault.message.len() < 200 && !fault.message.contains(['\n', '\u{1b}']), "{fault}");
    }
}
