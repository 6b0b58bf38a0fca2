//! One large file in and out of a sandbox as raw bytes, beside `cp` between the same file systems.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Bench;
use super::sandbox::{destroy, exec, spawn};
use crate::client::Client;
use crate::ground::{Ground, succeed};
use crate::numbers::{Samples, thousands};

const PIECE: usize = 256 << 10;
const ROUNDS: usize = 5;

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mib: u64 = if bench.args.quick { 256 } else { 1024 };
    let place = tempfile::Builder::new().prefix("stacyvm-bulk-").tempdir();
    let place = place.map_err(|e| format!("a temporary folder: {e}"))?;
    let (ours, back) = (place.path().join("file"), place.path().join("back"));
    write_noise(&ours, mib << 20).map_err(|e| format!("a file of {mib} MiB: {e}"))?;
    let beside = ground.on_the_sandboxes_disk("bench-copy");
    let mut client = ground.client().await?;
    let mut order: Value = serde_json::from_str(&ground.order()).map_err(|e| e.to_string())?;
    order["disk_size_mb"] = json!(2 * mib + 512);
    let id = spawn(&mut client, &order.to_string()).await?;
    let mut seen: [Samples; 4] = Default::default();
    // The first round warms up.
    for round in 0..=bench.args.times(ROUNDS) {
        let took = [
            sent(&mut client, &id, &ours).await?,
            copied(&ours, &beside)?,
            fetched(&mut client, &id, &back, mib << 20).await?,
            copied(&beside, &back)?,
        ];
        for (samples, took) in seen.iter_mut().zip(took) {
            if round > 0 {
                samples.add(took);
            }
        }
    }
    // A folder that the ground removes, should this fail.
    let _ = std::fs::remove_file(&beside);
    destroy(&mut client, &id).await?;
    let [sent, copied_in, fetched, copied_out] = seen.map(|samples| samples.p50());
    let rate = |took: Duration| {
        format!("{} MB/s", thousands((mib << 20) as f64 / 1e6 / took.as_secs_f64()))
    };
    let mut row = |what: &str, took: Duration, cp: Duration| {
        let share = cp.as_secs_f64() / took.as_secs_f64();
        bench.report.row(
            &format!("{what} a raw file of {mib} MiB"),
            rate(took),
            format!("`cp --reflink=never` {} ({:.0} % of it)", rate(cp), share * 100.0),
            "half the speed",
            Some(share >= 0.5),
        );
    };
    row("sending", sent, copied_in);
    row("fetching", fetched, copied_out);
    Ok(())
}

/// Until the server says that it is there.
async fn sent(client: &mut Client, id: &str, file: &Path) -> Result<Duration, String> {
    // Neither side has to get rid of an old one.
    let old = json!({ "command": "rm -f /workspace/file" }).to_string();
    exec(client, id, &old).await?;
    rustix::fs::sync();
    let mut from = File::open(file).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    client.put(&content(id), &mut from).await?;
    Ok(begun.elapsed())
}

async fn fetched(
    client: &mut Client,
    id: &str,
    file: &Path,
    bytes: u64,
) -> Result<Duration, String> {
    let _ = std::fs::remove_file(file);
    rustix::fs::sync();
    let begun = Instant::now();
    let mut to = File::create(file).map_err(|e| e.to_string())?;
    let (mut came, mut wrote) = (0, Ok(()));
    let take = |piece: &[u8]| {
        came += piece.len() as u64;
        if wrote.is_ok() {
            wrote = to.write_all(piece);
        }
    };
    client.read_through("GET", &content(id), "", take).await?;
    let took = begun.elapsed();
    wrote.map_err(|e| e.to_string())?;
    if came == bytes { Ok(took) } else { Err(format!("{came} bytes of a file of {bytes}")) }
}

fn content(id: &str) -> String {
    format!("/sandboxes/{id}/files/content?path=/workspace/file")
}

fn copied(from: &Path, to: &Path) -> Result<Duration, String> {
    let _ = std::fs::remove_file(to);
    rustix::fs::sync();
    let begun = Instant::now();
    succeed(Command::new("cp").arg("--reflink=never").arg(from).arg(to))?;
    Ok(begun.elapsed())
}

/// Content that no file system can make smaller.
fn write_noise(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut random = File::open("/dev/urandom")?;
    let mut file = File::create(path)?;
    let mut piece = vec![0; PIECE];
    for _ in 0..bytes / PIECE as u64 {
        random.read_exact(&mut piece)?;
        file.write_all(&piece)?;
    }
    Ok(())
}
