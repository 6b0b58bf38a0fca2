//! How many sandbox lives (insert, change to running and answered, change to destroyed) a second
//! the store remembers, at 1, 8 and 64 clients, beside rows that are there already.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use store::{Change, Limits, SqliteOptions, SqliteStore, Store};
use types::clock::{Clock, SystemClock};
use types::{OwnerId, Sandbox, SandboxId, SandboxSize, SandboxState, WorkerId};

/// Lives measured for each figure.
const LIVES: u64 = 20_000;

#[tokio::main]
async fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join("store-throughput.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).expect("a fresh database");
    for live in [0, 4_000] {
        for number in 0..live {
            insert(&*store, u64::MAX - number).await;
        }
        for clients in [1, 8, 64] {
            measure(&store, live, clients).await;
        }
    }
    store.close().await;
    for suffix in ["", ".lock"] {
        let _ = std::fs::remove_file(dir.join(format!("store-throughput.db{suffix}")));
    }
}

async fn measure(store: &Arc<SqliteStore>, live: u64, clients: u64) {
    let begun = SystemClock.boot();
    let base = begun.nanos();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for i in 0..LIVES / clients {
                let begun = SystemClock.boot();
                one_life(&*store, base + client * LIVES + i).await;
                took.push(SystemClock.boot().since(begun));
            }
            took
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a client does not panic"));
    }
    let all = SystemClock.boot().since(begun);
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    report(live, clients, took.len() as f64 / all.as_secs_f64(), at(50), at(99));
}

#[allow(clippy::print_stdout)] // its output is what it is for
fn report(live: u64, clients: u64, rate: f64, p50: Duration, p99: Duration) {
    println!("{live:5} live, {clients:3} clients: {rate:8.0} lives/s, p50 {p50:?}, p99 {p99:?}");
}

async fn insert(store: &dyn Store, number: u64) -> SandboxId {
    let id = SandboxId::parse(format!("sb-{number:020}")).expect("digits are an id");
    let now = SystemClock.wall();
    let sandbox = Sandbox {
        id: id.clone(),
        state: SandboxState::Creating,
        provider: "mock".into(),
        image: "host".into(),
        size: SandboxSize { memory_mb: 512, vcpus: 1, disk_size_mb: 1024 },
        owner_id: OwnerId::parse("bench").ok(),
        tenant_id: None,
        vm_id: None,
        worker_id: WorkerId::parse("local").expect("a valid id"),
        generation: 1,
        created_at: now,
        expires_at: now.saturating_add(Duration::from_secs(1800)),
        metadata: [("purpose".to_owned(), "bench".to_owned())].into(),
        preview_domain: Some("localhost".into()),
        ended_reason: None,
        answered: false,
        name: None,
        keyed: false,
    };
    let limits = Limits { max_sandboxes: 100_000, max_per_owner: 100_000 };
    store.insert_sandbox(sandbox, limits, None).await.expect("the insert works");
    id
}

async fn one_life(store: &dyn Store, number: u64) {
    let id = insert(store, number).await;
    let running =
        Change { state: Some(SandboxState::Running), answered: Some(true), ..Change::default() };
    store.change_sandbox(id.clone(), running).await.expect("the change works");
    let gone = Change { state: Some(SandboxState::Destroyed), ..Change::default() };
    store.change_sandbox(id, gone).await.expect("the change works");
}
