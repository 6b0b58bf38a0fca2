//! Whether a spawn costs more the more sandboxes live.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::time::Instant;

use super::Bench;
use super::sandbox::{destroy, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::load::all_at_once;
use crate::numbers::{Samples, ms};

const LEVELS: [usize; 4] = [0, 1000, 3000, 4000];
const CLIENTS: usize = 16;
const ROUNDS: usize = 500;
const AIM: f64 = 1.2;

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut live = Vec::new();
    let mut seen = Vec::new();
    let scale = if bench.args.quick { 10 } else { 1 };
    for level in LEVELS.map(|l| l / scale) {
        grow(ground, &mut live, level).await?;
        let cost = cost(bench, ground).await?;
        eprintln!("{level} live: spawn + destroy {}", cost.text());
        seen.push((level, cost));
    }
    shrink(ground, live).await?;
    // Once more with none: a machine that became slower meanwhile says nothing about us.
    let mut none = cost(bench, ground).await?;
    eprintln!("0 live again: {}", none.text());
    let (_, first) = seen.remove(0);
    none.extend(first);
    let base = none.p50().as_secs_f64();
    let ratio = |s: &Samples| s.p50().as_secs_f64() / base.max(1e-9);
    let (most, last) = seen.last().ok_or("nothing was measured")?;
    let others: Vec<String> = seen
        .iter()
        .map(|(level, samples)| format!("{level}: {} ({:.2} ×)", ms(samples.p50()), ratio(samples)))
        .collect();
    bench.report.row(
        &format!("spawn + destroy with {most} sandboxes live, beside none (mock)"),
        format!("{:.2} ×", ratio(last)),
        format!(
            "p50 in ms: none: {}, {}; the peer: 7 × with 3,000",
            ms(none.p50()),
            others.join(", ")
        ),
        "≤ 1.2 ×",
        Some(ratio(last) <= AIM),
    );
    Ok(())
}

async fn cost(bench: &Bench<'_>, ground: &Ground) -> Result<Samples, String> {
    let (mut client, order) = (ground.client().await?, ground.order());
    let mut samples = Samples::default();
    for _ in 0..bench.args.times(ROUNDS) {
        let begun = Instant::now();
        let id = spawn(&mut client, &order).await?;
        destroy(&mut client, &id).await?;
        samples.add(begun.elapsed());
    }
    Ok(samples)
}

async fn grow(ground: &Ground, live: &mut Vec<String>, to: usize) -> Result<(), String> {
    let missing = Rc::new(RefCell::new(to.saturating_sub(live.len())));
    let order = ground.order();
    let made = all_at_once(ground.clients(CLIENTS).await?, async move |client: &mut Client| {
        let mut ids = Vec::new();
        while take_one(&missing) {
            ids.push(spawn(client, &order).await?);
        }
        Ok(ids)
    });
    live.extend(made.await?.1.into_iter().flat_map(|(_, ids)| ids));
    Ok(())
}

fn take_one(left: &RefCell<usize>) -> bool {
    let mut left = left.borrow_mut();
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

async fn shrink(ground: &Ground, live: Vec<String>) -> Result<(), String> {
    let live = Rc::new(RefCell::new(live));
    let gone = all_at_once(ground.clients(CLIENTS).await?, async move |client: &mut Client| {
        loop {
            let Some(id) = live.borrow_mut().pop() else { return Ok(()) };
            destroy(client, &id).await?;
        }
    });
    gone.await.map(|_| ())
}
