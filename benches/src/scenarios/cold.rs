//! From nothing to the first output of `echo`: a new sandbox for each.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{destroy, first_words};
use crate::baseline::{bwrap, first_output, plain};
use crate::client::Client;
use crate::ground::Ground;
use crate::numbers::{Samples, times};

const TURNS: usize = 20;
const IN_A_TURN: usize = 25;
/// Of what takes a hundred times as long.
const SLOW_IN_A_TURN: usize = 3;
const AIM: Duration = Duration::from_micros(2200);
const ECHO: [&str; 2] = ["echo", "ok"];

#[derive(Default)]
struct Seen {
    floor: Samples,
    cold: Samples,
    spawned: Samples,
    destroyed: Samples,
    one_shot: Samples,
    plain: Samples,
    bwrap: Samples,
    docker: Samples,
}

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let order = ground.order();
    for _ in 0..20 {
        echo(&mut client, &order, &mut Seen::default()).await?;
    }
    let mut seen = Seen::default();
    // In turns, so that a machine that becomes slower does so for all; several of a kind at a
    // time, so that none pays for what the one before left in the caches.
    for _ in 0..bench.args.times(TURNS) {
        for _ in 0..IN_A_TURN {
            let begun = Instant::now();
            client.ask("GET", "/health", "").await?;
            seen.floor.add(begun.elapsed());
        }
        for _ in 0..IN_A_TURN {
            echo(&mut client, &order, &mut seen).await?;
        }
        for _ in 0..IN_A_TURN {
            seen.plain.add(first_output(&mut plain(&bench.busybox.program(), &ECHO))?);
        }
        for _ in 0..IN_A_TURN {
            seen.bwrap.add(first_output(&mut bwrap(bench.busybox.root(), &ECHO))?);
        }
        for _ in 0..SLOW_IN_A_TURN {
            seen.one_shot.add(first_output(&mut ground.one_shot(&ECHO))?);
        }
        if let Some(docker) = bench.docker {
            for _ in 0..SLOW_IN_A_TURN {
                seen.docker.add(first_output(&mut docker.run(&ECHO))?);
            }
        }
    }
    report(bench, &seen);
    Ok(())
}

async fn echo(client: &mut Client, order: &str, seen: &mut Seen) -> Result<(), String> {
    let said = first_words(client, order).await?;
    seen.spawned.add(said.spawned);
    seen.cold.add(said.first);
    let begun = Instant::now();
    destroy(client, &said.id).await?;
    seen.destroyed.add(begun.elapsed());
    Ok(())
}

fn report(bench: &mut Bench<'_>, seen: &Seen) {
    let cold = seen.cold.p50();
    let beside = |theirs: &Samples| format!("{} ({})", theirs.text(), times(cold, theirs.p50()));
    let report = &mut bench.report;
    report.row(
        "spawn → first output of `echo`, over HTTP",
        seen.cold.text(),
        format!("program alone {}", beside(&seen.plain)),
        "p50 ≤ 2.2 ms, p99 ≤ 5 × p50",
        Some(cold <= AIM && seen.cold.p99() <= 5 * cold),
    );
    report.row(
        "the same, beside bubblewrap",
        seen.cold.text(),
        format!("`bwrap` {}", beside(&seen.bwrap)),
        "faster",
        Some(cold < seen.bwrap.p50()),
    );
    if seen.docker.len() > 0 {
        report.row(
            "the same, beside Docker",
            seen.cold.text(),
            format!("`docker run --rm` {}", beside(&seen.docker)),
            "100 × faster",
            Some(cold * 100 <= seen.docker.p50()),
        );
    }
    report.row("spawn alone, over HTTP", seen.spawned.text(), String::new(), "", None);
    report.row("destroy, over HTTP", seen.destroyed.text(), String::new(), "", None);
    report.row(
        "`stacyvm run -- echo`, first output",
        seen.one_shot.text(),
        format!("`bwrap` {}", seen.bwrap.text()),
        "",
        None,
    );
    report.note(format!(
        "A request that does nothing (`/health`) takes {}: the floor of all figures over HTTP.",
        seen.floor.text()
    ));
}
