//! Bytes a second: the output of a command, and files.

use serde_json::json;
use tokio::time::Instant;

use super::Bench;
use super::sandbox::{contains, destroy, spawn};
use crate::baseline::{plain, through_pipe};
use crate::ground::Ground;
use crate::numbers::{Samples, factor, thousands};

/// A line of text as a program prints it: 64 bytes with its end.
const LINE: &str = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXY\n";
const FILE_MIB: usize = 16;
/// How often a command prints that file.
const REPEAT: usize = 16;
const ROUNDS: usize = 9;

/// The output of a command, streamed, beside the same program and bytes through a plain pipe.
pub async fn stream(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let id = spawn(&mut client, &ground.order()).await?;
    let text = LINE.repeat((FILE_MIB << 20) / LINE.len());
    let write = json!({"path": "/tmp/text", "content": text}).to_string();
    client.ask("POST", &format!("/sandboxes/{id}/files"), &write).await?;
    std::fs::write(bench.busybox.root().join("tmp/text"), &text).map_err(|e| e.to_string())?;

    let bytes = (text.len() * REPEAT) as u64;
    let script = |file: &str| {
        // `dd` reads and writes; `cat` would splice, which no program that makes its output can.
        let one = format!("dd if={file} bs=64k");
        format!("({}) 2>/dev/null", vec![one; REPEAT].join("; "))
    };
    let order = json!({"command": script("/tmp/text"), "stream": true}).to_string();
    let host_script = script(&bench.busybox.root().join("tmp/text").to_string_lossy());
    let path = format!("/sandboxes/{id}/exec");
    let (mut ours, mut pipe) = (Samples::default(), Samples::default());
    for _ in 0..bench.args.times(ROUNDS) {
        let (mut body, mut tail) = (0_u64, Vec::new());
        let begun = Instant::now();
        let take = |piece: &[u8]| {
            body += piece.len() as u64;
            tail = piece[piece.len().saturating_sub(64)..].to_vec();
        };
        client.read_through("POST", &path, &order, take).await?;
        ours.add(begun.elapsed());
        if body < bytes || !contains(&tail, b"\"exit_code\":0") {
            return Err(format!("{body} bytes of a stream of {bytes}"));
        }
        let words = ["sh", "-c", &host_script];
        let (seen, took) = through_pipe(&mut plain(&bench.busybox.program(), &words))?;
        pipe.add(took);
        if seen != bytes {
            return Err(format!("{seen} bytes through a pipe instead of {bytes}"));
        }
    }
    destroy(&mut client, &id).await?;
    let (ours, pipe) = (ours.p50().as_secs_f64(), pipe.p50().as_secs_f64());
    let rate = |seconds: f64| format!("{} MB/s", thousands(bytes as f64 / 1e6 / seconds));
    bench.report.row(
        "exec output, streamed to a local client",
        rate(ours),
        format!("plain pipe {} ({} of it)", rate(pipe), share(pipe / ours)),
        "a third of a pipe",
        Some(pipe / ours >= 1.0 / 3.0),
    );
    Ok(())
}

/// Whole files through the API, and small ones in a row.
pub async fn files(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut client = ground.client().await?;
    let id = spawn(&mut client, &ground.order()).await?;
    let path = format!("/sandboxes/{id}/files");
    let text = LINE.repeat((FILE_MIB << 20) / LINE.len());
    let write = json!({"path": "/workspace/big", "content": text}).to_string();
    let (mut wrote, mut read) = (Samples::default(), Samples::default());
    for _ in 0..bench.args.times(ROUNDS) {
        let begun = Instant::now();
        client.ask("POST", &path, &write).await?;
        wrote.add(begun.elapsed());
        let mut seen = 0;
        let begun = Instant::now();
        let big = format!("{path}?path=/workspace/big");
        client.read_through("GET", &big, "", |piece| seen += piece.len()).await?;
        read.add(begun.elapsed());
        if seen != text.len() {
            return Err(format!("{seen} bytes of a file of {}", text.len()));
        }
    }
    let rate = |took: Samples| {
        format!("{} MB/s", thousands(text.len() as f64 / 1e6 / took.p50().as_secs_f64()))
    };
    bench.report.row("writing a file of 16 MiB", rate(wrote), String::new(), "", None);
    bench.report.row("reading it", rate(read), String::new(), "", None);

    let small = json!({"path": "/workspace/small", "content": LINE}).to_string();
    let (mut wrote, mut read) = (Samples::default(), Samples::default());
    for _ in 0..bench.args.times(1000) {
        let begun = Instant::now();
        client.ask("POST", &path, &small).await?;
        wrote.add(begun.elapsed());
        let begun = Instant::now();
        client.ask("GET", &format!("{path}?path=/workspace/small"), "").await?;
        read.add(begun.elapsed());
    }
    bench.report.row("writing a file of 64 bytes", wrote.text(), String::new(), "", None);
    bench.report.row("reading it", read.text(), String::new(), "", None);
    destroy(&mut client, &id).await
}

fn share(part: f64) -> String {
    if part >= 1.0 { factor(part) } else { format!("{:.0} %", part * 100.0) }
}
