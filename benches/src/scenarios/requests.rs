//! Requests a second on the mock provider, beside the peer's on the same kind of machine.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use super::sandbox::{TRUE, destroy, exec, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::load::{Load, for_a_while};
use crate::numbers::{factor, thousands};

const CONNECTIONS: [usize; 3] = [1, 8, 64];

#[derive(Clone, Copy)]
enum Op {
    Health,
    Get,
    Exec,
    SpawnDestroy,
    SpawnExecDestroy,
}

/// An operation and what the peer does of it in a second, with 1, 8 and 64 connections.
const OPS: [(&str, Op, [f64; 3]); 5] = [
    ("health", Op::Health, [17_400.0, 68_600.0, 70_900.0]),
    ("get a sandbox", Op::Get, [19_200.0, 69_200.0, 72_400.0]),
    ("exec `true`", Op::Exec, [446.0, 587.0, 604.0]),
    ("spawn + destroy", Op::SpawnDestroy, [177.0, 165.0, 158.0]),
    ("spawn + exec + destroy", Op::SpawnExecDestroy, [120.0, 130.0, 129.0]),
];

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let time = Duration::from_millis(if bench.args.quick { 1000 } else { 4000 });
    let order = Arc::new(ground.order());
    let id = Arc::new(spawn(&mut ground.client().await?, &order).await?);
    for (name, op, peer) in OPS {
        let (mut cells, mut beside) = (vec![name.to_owned()], vec!["the peer's".to_owned()]);
        let mut loads = Vec::new();
        for (number, theirs) in CONNECTIONS.into_iter().zip(peer) {
            let (order, id) = (Arc::clone(&order), Arc::clone(&id));
            let clients = ground.clients(number).await?;
            let work = async move |client: &mut Client| once(client, op, &order, &id).await;
            let load = for_a_while(clients, time, work).await?;
            eprintln!("{name}, {number} connections: {}", load.cell());
            cells.push(load.cell());
            let ratio = factor(load.per_second() / theirs);
            beside.push(format!("{} ({ratio})", thousands(theirs)));
            loads.push(load);
        }
        bench.report.requests.push(cells);
        bench.report.requests.push(beside);
        if matches!(op, Op::SpawnDestroy) {
            nobody_waits(bench, &loads);
        }
    }
    destroy(&mut ground.client().await?, &id).await
}

async fn once(client: &mut Client, op: Op, order: &str, id: &str) -> Result<(), String> {
    match op {
        Op::Health => client.ask("GET", "/health", "").await.map(|_| ()),
        Op::Get => client.ask("GET", &format!("/sandboxes/{id}"), "").await.map(|_| ()),
        Op::Exec => exec(client, id, TRUE).await,
        Op::SpawnDestroy => {
            let id = spawn(client, order).await?;
            destroy(client, &id).await
        }
        Op::SpawnExecDestroy => {
            let id = spawn(client, order).await?;
            exec(client, &id, TRUE).await?;
            destroy(client, &id).await
        }
    }
}

/// With 64 clients as much gets done as with 8, and the unlucky wait at most twice the mean.
fn nobody_waits(bench: &mut Bench<'_>, loads: &[Load]) {
    let [_, few, many] = loads else { return };
    let p99 = many.samples.p99().as_secs_f64() / many.mean().as_secs_f64().max(1e-9);
    let kept = many.per_second() / few.per_second().max(1e-9);
    bench.report.row(
        "64 clients spawning, beside 8 (mock)",
        format!("{} of the throughput, p99 {p99:.1} × the mean", percent(kept)),
        String::new(),
        "≥ 100 %, ≤ 2 ×",
        Some(kept >= 1.0 && p99 <= 2.0),
    );
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}
