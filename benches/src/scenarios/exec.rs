//! A command in a sandbox that runs already.

use std::time::Duration;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{ECHO, destroy, exec, spawn};
use crate::baseline::{first_output, plain};
use crate::ground::Ground;
use crate::numbers::{Samples, times};

const ROUNDS: usize = 2000;
const DOCKER_EVERY: usize = 40;
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
    for round in 0..bench.args.times(ROUNDS) {
        let begun = Instant::now();
        exec(&mut client, &id, ECHO).await?;
        ours.add(begun.elapsed());
        alone.add(first_output(&mut plain(&bench.busybox.program(), &["echo", "ok"]))?);
        if let (Some(docker), true) = (bench.docker, round.is_multiple_of(DOCKER_EVERY)) {
            theirs.add(first_output(&mut docker.exec(&["echo", "ok"]))?);
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
