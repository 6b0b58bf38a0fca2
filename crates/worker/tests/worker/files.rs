//! Files, the console and numbers through the agent.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use protocol::worker::{ByteStream, FileOp, FileReply, ReadRange, WorkerLink};
use types::{ErrorCode, Fault, SandboxId};
use worker::Worker;

use crate::support::{World, wait_for, within};

fn content(pieces: Vec<Result<Bytes, Fault>>) -> ByteStream {
    Box::pin(stream::iter(pieces))
}

async fn write(worker: &Worker, id: &SandboxId, path: &str, what: ByteStream) -> Result<(), Fault> {
    let op = FileOp::Write { path: path.to_owned(), mode: None, content: what };
    match within("a write", worker.files(id.clone(), op)).await? {
        FileReply::Done => Ok(()),
        _ => panic!("a write is answered with done"),
    }
}

#[tokio::test]
async fn content_streams_in_and_out_unchanged() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    // Larger than the window, in pieces larger and smaller than a frame.
    let sent: Vec<u8> = (0..1_500_000u32).map(|n| n as u8).collect();
    let pieces = [&sent[..700_000], &sent[700_000..700_001], &[], &sent[700_001..]];
    let pieces = pieces.iter().map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    write(&worker, &id, "/f", content(pieces)).await.unwrap();
    let op = FileOp::Read { path: "/f".to_owned(), range: None };
    let FileReply::Content { size, content } = worker.files(id.clone(), op).await.unwrap() else {
        panic!("a read is answered with content");
    };
    assert_eq!(size, sent.len() as u64);
    let got: Vec<Bytes> =
        within("the content", content.map(Result::unwrap).collect::<Vec<_>>()).await;
    assert!(got.concat() == sent);
}

/// The agent here says that it can do nothing: it is not asked for a part.
#[tokio::test]
async fn a_part_of_a_file_is_cut_out_for_agents_that_know_no_ranges() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    write(&worker, &id, "/f", content(vec![Ok(Bytes::from(sent.clone()))])).await.unwrap();
    for (start, end, part) in [
        (Some(70_000), Some(209_999), &sent[70_000..210_000]),
        (Some(299_999), None, &sent[299_999..]),
        (None, Some(5), &sent[299_995..]),
        (Some(300_000), None, &[]),
    ] {
        let op = FileOp::Read { path: "/f".to_owned(), range: Some(ReadRange { start, end }) };
        let FileReply::Content { size, content } = worker.files(id.clone(), op).await.unwrap()
        else {
            panic!("a read is answered with content");
        };
        assert_eq!(size, 300_000);
        let got = within("a part", content.map(Result::unwrap).collect::<Vec<_>>()).await;
        assert!(got.concat() == part, "{start:?} to {end:?}");
    }
}

#[tokio::test]
async fn a_write_that_breaks_off_is_never_seen() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let broken = vec![Ok(Bytes::from_static(b"half")), Err(Fault::bad_request("the client left"))];
    let fault = write(&worker, &id, "/f", content(broken)).await.unwrap_err();
    assert_eq!(fault.message, "the client left");
    wait_for("the cancel", async || (*agent.cancelled.lock().unwrap() == 1).then_some(())).await;
    assert!(agent.files.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_write_does_not_wait_for_the_rest_of_its_content() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 50_000])));
    let fault = write(&worker, &id, "/full", Box::pin(endless)).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::DiskFull);
}

#[tokio::test]
async fn lists_faults_and_lines() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    for path in ["/a", "/b"] {
        write(&worker, &id, path, content(Vec::new())).await.unwrap();
    }
    let op = FileOp::List { path: "/".to_owned() };
    let FileReply::Entries(entries) = worker.files(id.clone(), op).await.unwrap() else {
        panic!("a list is answered with entries");
    };
    let seen: Vec<_> = entries.iter().map(|e| (e.path.as_str(), e.mode)).collect();
    assert_eq!(seen, [("/a", 0o644), ("/b", 0o644)], "permission bits only");
    let op = FileOp::Read { path: "/none".to_owned(), range: None };
    let fault = worker.files(id.clone(), op).await.err().unwrap();
    assert_eq!(fault.code, ErrorCode::FileNotFound);
    assert_eq!(worker.logs(id, 3).await.unwrap().len(), 3);
}

#[tokio::test]
async fn cpu_is_a_rate_between_two_looks() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let mut rates = Vec::new();
    for used in [1, 2, 2] {
        world.clock.advance(Duration::from_secs(2));
        *world.provider.cpu.lock().unwrap() = Duration::from_secs(used);
        let stats = worker.stats(id.clone()).await.unwrap();
        rates.push(stats.cpu_pct.unwrap());
        assert_eq!(stats.disk_bytes, Some(7), "the agent completes what the host can't tell");
    }
    assert_eq!(rates, [50.0, 50.0, 0.0]);
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_the_rest_goes_on() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let agent = world.provider.agent(&id);
    let op = FileOp::Glob { pattern: "**".to_owned() };
    let fault = within("the glob", worker.files(id.clone(), op)).await.err().unwrap();
    assert_eq!(fault.code, ErrorCode::TooLarge);
    wait_for("the cancel", async || (*agent.cancelled.lock().unwrap() == 1).then_some(())).await;
    assert_eq!(worker.logs(id, 1).await.unwrap().len(), 1);
}
