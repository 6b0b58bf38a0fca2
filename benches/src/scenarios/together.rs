//! Many sandboxes at once.

use std::time::Duration;

use super::Bench;
use super::sandbox::{ECHO, destroy, exec, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::load::{Load, all_at_once, for_a_while};
use crate::numbers::{Samples, factor, ms, thousands};

const BURST: usize = 100;
const BURSTS: usize = 20;
const BURST_P50: Duration = Duration::from_millis(120);
const BURST_P99: Duration = Duration::from_millis(250);
const SUSTAINED: f64 = 400.0;

/// A hundred spawns in the same moment.
pub async fn burst(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut clients = ground.clients(BURST).await?;
    let order = ground.order();
    let mut samples = Samples::default();
    for round in 0..=bench.args.times(BURSTS) {
        let order = order.clone();
        let spawned = all_at_once(clients, async move |c: &mut Client| spawn(c, &order).await);
        let (ready, made) = spawned.await?;
        // The first one warms up.
        if round > 0 {
            samples.extend(ready);
        }
        clients = Vec::with_capacity(BURST);
        for (mut client, id) in made {
            destroy(&mut client, &id).await?;
            clients.push(client);
        }
    }
    bench.report.row(
        "100 spawns at once: each ready after",
        samples.text(),
        String::new(),
        "p50 ≤ 120 ms, p99 ≤ 250 ms",
        Some(samples.p50() <= BURST_P50 && samples.p99() <= BURST_P99),
    );
    Ok(())
}

/// Spawn, exec and destroy, over and over.
pub async fn sustained(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let time = Duration::from_secs(if bench.args.quick { 2 } else { 8 });
    let mut rates = Vec::new();
    for number in [1, 8, 64] {
        let load = cycles(ground, number, time).await?;
        rates.push(load.per_second());
        let fair = match number {
            64 => format!("p99 {} × the mean", twice(&load)),
            _ => String::new(),
        };
        bench.report.row(
            &format!("spawn → exec → destroy, {number} at a time"),
            format!("{} a second, {}", thousands(load.per_second()), load.samples.text()),
            fair,
            if number == 1 { "" } else { "≥ 400 a second" },
            (number > 1).then_some(load.per_second() >= SUSTAINED),
        );
    }
    Ok(())
}

async fn cycles(ground: &Ground, number: usize, time: Duration) -> Result<Load, String> {
    let order = ground.order();
    let clients = ground.clients(number).await?;
    for_a_while(clients, time, async move |client: &mut Client| {
        let id = spawn(client, &order).await?;
        exec(client, &id, ECHO).await?;
        destroy(client, &id).await
    })
    .await
}

/// p99 as a multiple of the mean.
pub fn twice(load: &Load) -> String {
    let (p99, mean) = (load.samples.p99().as_secs_f64(), load.mean().as_secs_f64());
    format!("{} of {} ms", factor(p99 / mean.max(1e-9)).trim_end_matches('×'), ms(load.mean()))
}
