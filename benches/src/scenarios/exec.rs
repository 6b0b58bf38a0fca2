//! A command in a sandbox that runs already.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{ECHO, destroy, exec, spawn};
use crate::baseline::{first_output, plain};
use crate::ground::Ground;
use crate::numbers::{Samples, times};

const TURNS: usize = 20;
const IN_A_TURN: usize = 50;
const SLOW_IN_A_TURN: usize = 3;
const AIM: Duration = Duration::from_micros(900);

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let id = spawn(&mut client, &ground.order()).await?;
    if let Some(docker) = bench.docker {
        docker.keep_one()?;
    }
    for _ in 0..50 {
        exec(&mut client, &id, ECHO).await?;
    }
    let (mut ours, mut alone, mut theirs) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..bench.args.times(TURNS) {
        for _ in 0..IN_A_TURN {
            let begun = Instant::now();
            exec(&mut client, &id, ECHO).await?;
            ours.add(begun.elapsed());
        }
        for _ in 0..IN_A_TURN {
            alone.add(first_output(&mut plain(&bench.busybox.program(), &["echo", "ok"]))?);
        }
        if let Some(docker) = bench.docker {
            for _ in 0..SLOW_IN_A_TURN {
                theirs.add(first_output(&mut docker.exec(&["echo", "ok"]))?);
            }
        }
    }
    destroy(&mut client, &id).await?;
    let p50 = ours.p50();
    bench.report.row(
        "exec round trip in a running sandbox, over HTTP",
        ours.text(),
        format!("program alone {} ({})", alone.text(), times(p50, alone.p50())),
        "p50 ≤ 0.9 ms",
        Some(p50 <= AIM),
    );
    if theirs.len() > 0 {
        bench.report.row(
            "the same, beside Docker",
            ours.text(),
            format!("`docker exec` {} ({})", theirs.text(), times(p50, theirs.p50())),
            "50 × faster",
            Some(p50 * 50 <= theirs.p50()),
        );
    }
    Ok(())
}
