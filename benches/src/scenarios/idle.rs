//! A thousand sandboxes that do nothing: what they cost, and how fast a new server has them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Bench;
use super::sandbox::{ECHO, destroy, exec, spawn};
use crate::client::Client;
use crate::ground::Ground;
use crate::host;
use crate::load::all_at_once;
use crate::numbers::ms;

const SANDBOXES: usize = 1000;
const CLIENTS: usize = 20;
/// Longer than what the kernel frees later takes.
const SETTLE: Duration = Duration::from_secs(3);
const AIM_MIB: f64 = 0.6;
const AIM_ADOPTED: Duration = Duration::from_secs(2);

pub async fn measure(bench: &mut Bench<'_>, ground: &mut Ground) -> Result<(), String> {
    let number = if bench.args.quick { SANDBOXES / 10 } else { SANDBOXES };
    // Everything that is made once has been made.
    let mut client = ground.client().await?;
    let warm = spawn(&mut client, &ground.order()).await?;
    exec(&mut client, &warm, ECHO).await?;
    destroy(&mut client, &warm).await?;
    sleep(SETTLE).await;
    let server = ground.server().pid();
    let (before, server_before) = (host::memory_in_use(), host::pss(&[server]));

    let ids = spawn_all(ground, number).await?;
    sleep(SETTLE).await;
    let used = host::memory_in_use().saturating_sub(before);
    let in_server = host::pss(&[server]).saturating_sub(server_before);
    let each = used as f64 / 1024.0 / number as f64;
    let agents: Vec<u32> = host::descendants(server);
    let own = host::pss(&agents) as f64 / agents.len().max(1) as f64;
    bench.report.row(
        &format!("{number} idle sandboxes: memory each, all-in"),
        format!("{each:.2} MiB"),
        format!(
            "of it {own:.0} KiB PSS of its processes, {:.1} KiB in the server",
            in_server as f64 / number as f64
        ),
        "≤ 0.6 MiB",
        Some(each <= AIM_MIB),
    );
    for (gently, how) in [(true, "stopped"), (false, "killed")] {
        adopted(bench, ground, &ids, gently, how).await?;
    }
    let begun = Instant::now();
    destroy_all(ground, ids).await?;
    bench.report.row(
        &format!("destroying {number} sandboxes, {CLIENTS} clients"),
        format!("{} ms", ms(begun.elapsed())),
        String::new(),
        "",
        None,
    );
    Ok(())
}

/// Ends the server and times the next one until it is ready with every sandbox.
async fn adopted(
    bench: &mut Bench<'_>,
    ground: &mut Ground,
    ids: &[String],
    gently: bool,
    how: &str,
) -> Result<(), String> {
    let took = ground.restart(gently).await;
    let mut client = ground.client().await?;
    client.ask("GET", "/ready", "").await?;
    for id in ids.iter().step_by((ids.len() / 10).max(1)) {
        exec(&mut client, id, ECHO).await.map_err(|e| format!("after a restart: {e}"))?;
    }
    bench.report.row(
        &format!("a server that was {how} is back, {} sandboxes adopted", ids.len()),
        format!("{} ms", ms(took)),
        String::new(),
        "≤ 2 s",
        Some(took <= AIM_ADOPTED),
    );
    Ok(())
}

async fn spawn_all(ground: &Ground, number: usize) -> Result<Vec<String>, String> {
    let (order, each) = (ground.order(), number / CLIENTS);
    let made = all_at_once(ground.clients(CLIENTS).await?, async move |client: &mut Client| {
        let mut ids = Vec::with_capacity(each);
        for _ in 0..each {
            ids.push(spawn(client, &order).await?);
        }
        Ok(ids)
    });
    Ok(made.await?.1.into_iter().flat_map(|(_, ids)| ids).collect())
}

async fn destroy_all(ground: &Ground, ids: Vec<String>) -> Result<(), String> {
    let ids = std::rc::Rc::new(std::cell::RefCell::new(ids));
    let gone = all_at_once(ground.clients(CLIENTS).await?, async move |client: &mut Client| {
        loop {
            let Some(id) = ids.borrow_mut().pop() else { return Ok(()) };
            destroy(client, &id).await?;
        }
    });
    gone.await.map(|_| ())
}
