//! From a sandbox that is kept ready to the first output of `echo`, and what filling the pool again
//! costs those who run commands meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{ECHO, ECHO_STREAM, destroy, exec, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::numbers::{Samples, times};

/// Kept ready.
pub const POOL: u32 = 8;
const SAMPLES: usize = 400;
/// Commands right after each spawn, while a new one is made, and as many in peace.
const COMMANDS: usize = 4;
const AIM: Duration = Duration::from_micros(1200);
/// Longer than a pool that is not full takes to fill.
const PATIENCE: Duration = Duration::from_secs(10);
/// What else a server does behind a spawn is done by then.
const REST: Duration = Duration::from_millis(25);

#[derive(Default)]
struct Seen {
    first: Samples,
    spawned: Samples,
    beside: Samples,
    alone: Samples,
}

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let order = ground.order();
    let resident = spawn(&mut client, &order).await?;
    for _ in 0..10 {
        echo(&mut client, &order, &resident, &mut Seen::default()).await?;
    }
    let before = taken(&mut client).await?;
    let mut seen = Seen::default();
    let samples = bench.args.times(SAMPLES);
    for _ in 0..samples {
        echo(&mut client, &order, &resident, &mut seen).await?;
    }
    let served = taken(&mut client).await? - before;
    if served != samples as u64 {
        return Err(format!("{served} of {samples} spawns were served by the pool"));
    }
    destroy(&mut client, &resident).await?;
    report(bench, &seen);
    Ok(())
}

async fn echo(
    client: &mut Client,
    order: &str,
    resident: &str,
    seen: &mut Seen,
) -> Result<(), String> {
    full(client).await?;
    tokio::time::sleep(REST).await;
    for _ in 0..COMMANDS {
        let begun = Instant::now();
        exec(client, resident, ECHO).await?;
        seen.alone.add(begun.elapsed());
    }
    tokio::time::sleep(REST).await;
    let begun = Instant::now();
    let id = spawn(client, order).await?;
    seen.spawned.add(begun.elapsed());
    let mut first = None;
    let path = format!("/sandboxes/{id}/exec");
    let note = |_: &[u8]| first = first.or_else(|| Some(begun.elapsed()));
    client.read_through("POST", &path, ECHO_STREAM, note).await?;
    seen.first.add(first.ok_or("an empty stream")?);
    // The pool fills as soon as there is a pause: from the next of these on.
    tokio::time::sleep(REST / 2).await;
    for _ in 0..COMMANDS {
        let begun = Instant::now();
        exec(client, resident, ECHO).await?;
        seen.beside.add(begun.elapsed());
    }
    destroy(client, &id).await
}

async fn status(client: &mut Client) -> Result<serde_json::Value, String> {
    Ok(client.json("GET", "/pool/status", "").await?["warm"].take())
}

async fn taken(client: &mut Client) -> Result<u64, String> {
    status(client).await?["taken"].as_u64().ok_or("there is no warm pool".to_owned())
}

async fn full(client: &mut Client) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let seen = status(client).await?;
        if seen["ready"].as_u64().is_some_and(|ready| ready > 0) && seen["ready"] == seen["desired"]
        {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("the pool does not fill: {seen}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn report(bench: &mut Bench<'_>, seen: &Seen) {
    let report = &mut bench.report;
    let first = seen.first.p50();
    report.row(
        "warm spawn → first output of `echo`, over HTTP",
        seen.first.text(),
        format!("`exec` alone {}", seen.alone.text()),
        "p50 ≤ 1.2 ms",
        Some(first <= AIM),
    );
    report.row("warm spawn alone, over HTTP", seen.spawned.text(), String::new(), "", None);
    report.row(
        "`exec` while a pool fills up again",
        seen.beside.text(),
        format!("in peace {} ({})", seen.alone.text(), times(seen.beside.p99(), seen.alone.p99())),
        "p99 ≤ 2 × in peace",
        Some(seen.beside.p99() <= 2 * seen.alone.p99()),
    );
}
