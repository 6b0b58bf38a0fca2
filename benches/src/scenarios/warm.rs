//! From a sandbox that is kept ready to the first output of `echo`, and what filling the pool again
//! costs those who run commands meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{ECHO, destroy, exec, first_words, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::numbers::Samples;

/// Kept ready: more than a turn takes.
pub const POOL: u32 = 32;
const TURNS: usize = 16;
const IN_A_TURN: usize = 25;
const AIM: Duration = Duration::from_micros(1200);
/// Longer than a pool that is not full takes to fill.
const PATIENCE: Duration = Duration::from_secs(10);
/// What else a server does behind a spawn is done by then; and between two commands beside a pool
/// that fills, since it does so in pauses.
const REST: Duration = Duration::from_millis(25);

#[derive(Default)]
struct Seen {
    first: Samples,
    spawned: Samples,
    exec: Samples,
    beside: Samples,
    alone: Samples,
}

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let order = ground.order();
    let resident = spawn(&mut client, &order).await?;
    turn(&mut client, &order, &resident, &mut Seen::default()).await?;
    let before = taken(&mut client).await?;
    let mut seen = Seen::default();
    let turns = bench.args.times(TURNS);
    for _ in 0..turns {
        turn(&mut client, &order, &resident, &mut seen).await?;
    }
    let served = taken(&mut client).await? - before;
    if served != (turns * IN_A_TURN) as u64 {
        return Err(format!("{served} of {} spawns were served by the pool", turns * IN_A_TURN));
    }
    destroy(&mut client, &resident).await?;
    report(bench, &seen);
    Ok(())
}

/// As many spawns in a row as the pool serves; commands with pauses while it fills up again, and as
/// many when it is full.
async fn turn(
    client: &mut Client,
    order: &str,
    resident: &str,
    seen: &mut Seen,
) -> Result<(), String> {
    full(client).await?;
    tokio::time::sleep(REST).await;
    for _ in 0..IN_A_TURN {
        let begun = Instant::now();
        exec(client, resident, ECHO).await?;
        seen.exec.add(begun.elapsed());
    }
    for _ in 0..IN_A_TURN {
        echo(client, order, seen).await?;
    }
    while ready(client).await? < u64::from(POOL) {
        tokio::time::sleep(REST).await;
        let begun = Instant::now();
        exec(client, resident, ECHO).await?;
        seen.beside.add(begun.elapsed());
    }
    for _ in 0..IN_A_TURN {
        tokio::time::sleep(REST).await;
        let begun = Instant::now();
        exec(client, resident, ECHO).await?;
        seen.alone.add(begun.elapsed());
    }
    Ok(())
}

async fn echo(client: &mut Client, order: &str, seen: &mut Seen) -> Result<(), String> {
    let said = first_words(client, order).await?;
    seen.spawned.add(said.spawned);
    seen.first.add(said.first);
    destroy(client, &said.id).await
}

async fn status(client: &mut Client) -> Result<serde_json::Value, String> {
    Ok(client.json("GET", "/pool/status", "").await?["warm"].take())
}

async fn taken(client: &mut Client) -> Result<u64, String> {
    status(client).await?["taken"].as_u64().ok_or("there is no warm pool".to_owned())
}

async fn ready(client: &mut Client) -> Result<u64, String> {
    status(client).await?["ready"].as_u64().ok_or("there is no warm pool".to_owned())
}

async fn full(client: &mut Client) -> Result<(), String> {
    let begun = Instant::now();
    while ready(client).await? < u64::from(POOL) {
        if begun.elapsed() > PATIENCE {
            return Err("the pool does not fill".to_owned());
        }
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

fn report(bench: &mut Bench<'_>, seen: &Seen) {
    let report = &mut bench.report;
    let first = seen.first.p50();
    report.row(
        "warm spawn → first output of `echo`, over HTTP",
        seen.first.text(),
        format!("`exec` in one that runs {}", seen.exec.text()),
        "p50 ≤ 1.2 ms",
        Some(first <= AIM),
    );
    report.row("warm spawn alone, over HTTP", seen.spawned.text(), String::new(), "", None);
    report.row(
        "`exec` with pauses, while a pool fills up",
        seen.beside.text(),
        format!("while it is full {}", seen.alone.text()),
        "p99 ≤ 2 × while full",
        Some(seen.beside.p99() <= 2 * seen.alone.p99()),
    );
}
