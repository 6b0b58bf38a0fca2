//! A key typed in a terminal of a sandbox, until its echo is seen.

use std::time::Duration;

use client::api::{ExecRequest, ServerWord};
use client::{Heard, Listener, Speaker, Topic};
use tokio::time::Instant;

use super::Bench;
use super::sandbox::{destroy, spawn};
use crate::ground::Ground;
use crate::numbers::Samples;

const KEYS: usize = 5000;
const WARM: usize = 100;
/// A line of the terminal holds 4,095 characters: it is ended before that.
const LINE: usize = 1000;
const AIM: Duration = Duration::from_millis(1);

pub async fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<(), String> {
    let mut http = ground.client().await?;
    let id = spawn(&mut http, &ground.order()).await?;
    let keys = bench.args.times(KEYS);
    // A program that answers each key, as a shell or an editor does.
    let raw = typed(ground, &id, "stty raw -echo; echo ready; exec cat", keys).await?;
    // The kernel's own echo: the way there and back, without a program.
    let plain = typed(ground, &id, "echo ready; exec cat > /dev/null", keys).await?;
    destroy(&mut http, &id).await?;
    bench.report.row(
        "a key typed in a terminal, over the WebSocket, until its echo",
        raw.text(),
        format!("echo of the kernel alone {}", plain.text()),
        "p50 ≤ 1 ms",
        Some(raw.p50() <= AIM),
    );
    Ok(())
}

async fn typed(ground: &Ground, id: &str, script: &str, keys: usize) -> Result<Samples, String> {
    let request = ExecRequest {
        command: Some(script.to_owned()),
        tty: Some(true),
        cols: Some(80),
        rows: Some(24),
        ..ExecRequest::default()
    };
    let client = ground.server().client();
    let talk = client.talk(id, &Topic::Start(Box::new(request)), true).await;
    let (mut speaker, mut listener) = talk.map_err(|e| e.to_string())?;
    until(&mut listener, b'y').await?;
    let mut samples = Samples::default();
    for n in 0..WARM + keys {
        let begun = Instant::now();
        say(&mut speaker, b"x").await?;
        until(&mut listener, b'x').await?;
        if n >= WARM {
            samples.add(begun.elapsed());
        }
        if n % LINE == LINE - 1 {
            say(&mut speaker, b"\n").await?;
            until(&mut listener, b'\n').await?;
        }
    }
    speaker.close().await;
    Ok(samples)
}

async fn say(speaker: &mut Speaker, keys: &'static [u8]) -> Result<(), String> {
    speaker.stdin(keys.into()).await.map_err(|e| e.to_string())
}

/// Reads on until the output ends with this byte.
async fn until(listener: &mut Listener, last: u8) -> Result<(), String> {
    loop {
        match listener.next().await.map_err(|e| e.to_string())? {
            Some(Heard::Stdout(data) | Heard::Stderr(data)) if data.contains(&last) => {
                return Ok(());
            }
            Some(Heard::Stdout(_) | Heard::Stderr(_))
            | Some(Heard::Word(ServerWord::Started { .. })) => {}
            other => return Err(format!("a terminal that said {other:?}")),
        }
    }
}
