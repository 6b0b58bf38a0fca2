//! Crashes at moments that nobody chose, under load: what was promised to a client holds.
//!
//! `scripts/soak` runs the long one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use client::api::SpawnRequest;
use client::{Client, Error};
use rustix::process::Signal;
use testkit::wait_for;

use super::slate::assert_clean;
use super::world::{SOON, Server, World, in_time, shell};

/// What the clients were told. Bounded by what they spawn.
#[derive(Default)]
struct Told {
    /// Spawned, and nobody has asked to destroy them.
    living: BTreeSet<String>,
    /// Somebody has asked, and was not answered.
    doomed: BTreeSet<String>,
    /// It was answered.
    gone: BTreeSet<String>,
    /// Calls that had an answer.
    answers: u64,
}

type Book = Arc<Mutex<Told>>;

/// Good enough dice, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_through_crashes_under_load() {
    rounds("native", 10, 0x5eed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_on_mock_through_crashes_under_load() {
    rounds("mock", 6, 0x5eed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak runs it"]
#[allow(clippy::disallowed_methods)] // a test's own switches
async fn promises_hold_for_long() {
    let number = |name: &str| std::env::var(name).ok().and_then(|t| t.parse().ok());
    let seed = number("SEED").unwrap_or(1);
    for seed in (seed..).take(number("ROUNDS").unwrap_or(10) as usize) {
        println!("seed {seed}");
        rounds("native", 25, seed * 0x9e37_79b9 + 1).await;
        rounds("mock", 25, seed * 0x9e37_79b9 + 2).await;
    }
}

async fn rounds(provider: &'static str, count: u32, seed: u64) {
    let mut world = World::new(provider);
    let mut dice = Dice(seed);
    let book = Book::default();
    for round in 0..count {
        let server = world.start().await;
        compare(&world, &server, &book).await;
        let mut loops = tokio::task::JoinSet::new();
        for n in 0..6 {
            let (client, book) = (server.client.clone(), Arc::clone(&book));
            let dice =
                Dice(seed ^ u64::from(round * 64 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            loops.spawn(async move { work(&client, &book, dice).await });
        }
        // Which moment this is depends on the machine as well: that is the point.
        answers(&book, dice.below(150)).await;
        match dice.below(4) {
            0 => {
                server.spawner().kill();
                answers(&book, dice.below(3)).await;
                // It may be between two of them.
                server.running.kill().await;
            }
            1 => server.end_by(Signal::TERM).await,
            _ => server.end_by(Signal::KILL).await,
        }
        while let Some(ended) = in_time("a client", loops.join_next()).await {
            ended.unwrap();
        }
    }
    let server = world.start().await;
    compare(&world, &server, &book).await;
    for id in server.ids().await.unwrap() {
        server.destroy(&id).await;
    }
    assert_clean(&world, &server, &[]).await;
    server.stop().await;
    world.assert_nothing_left().await;
}

/// Waits for so many more.
async fn answers(book: &Book, more: u64) {
    let wanted = book.lock().unwrap().answers + more;
    wait_for("clients to be answered", SOON, async || match book.lock().unwrap().answers {
        now if now >= wanted => Ok(()),
        now => Err(format!("{now} of {wanted}")),
    })
    .await;
}

/// Works until the server is gone.
async fn work(client: &Client, book: &Book, mut dice: Dice) {
    loop {
        let done = match dice.below(8) {
            0..3 => spawn(client, book).await,
            3..5 => destroy(client, book, &mut dice).await,
            5 => write(client, book, &mut dice).await,
            _ => exec(client, book, &mut dice).await,
        };
        if done.as_ref().map_or_else(|e| e.status().is_some(), |()| true) {
            book.lock().unwrap().answers += 1;
        }
        match done {
            Ok(()) => {}
            // A server or a spawner that goes says so; a sandbox may be another client's victim.
            Err(Error::Api { status: 503 | 404 | 409, .. }) => tokio::task::yield_now().await,
            Err(Error::Api { status, code, message }) => panic!("{status} {code}: {message}"),
            Err(_) => return,
        }
    }
}

async fn spawn(client: &Client, book: &Book) -> Result<(), Error> {
    // A few dozen at most: the host has other work to do.
    if book.lock().unwrap().living.len() >= 24 {
        tokio::task::yield_now().await;
        return Ok(());
    }
    let made = client.spawn(&SpawnRequest::default()).await?;
    book.lock().unwrap().living.insert(made.id);
    Ok(())
}

async fn destroy(client: &Client, book: &Book, dice: &mut Dice) -> Result<(), Error> {
    let Some(id) = choose(book, dice) else { return Ok(()) };
    {
        let mut told = book.lock().unwrap();
        if !told.living.remove(&id) {
            return Ok(());
        }
        told.doomed.insert(id.clone());
    }
    let answer = client.destroy(&id, None).await?;
    if answer.status == "destroyed" {
        let mut told = book.lock().unwrap();
        told.doomed.remove(&id);
        told.gone.insert(id);
    }
    Ok(())
}

async fn exec(client: &Client, book: &Book, dice: &mut Dice) -> Result<(), Error> {
    let Some(id) = choose(book, dice) else { return Ok(()) };
    let done = client.exec(&id, &shell("echo $((6 * 7)); exit 3")).await?;
    assert_eq!((done.exit_code, done.stdout.as_str()), (3, "42\n"));
    Ok(())
}

async fn write(client: &Client, book: &Book, dice: &mut Dice) -> Result<(), Error> {
    let Some(id) = choose(book, dice) else { return Ok(()) };
    let content = ["a", "b"][dice.below(2) as usize].repeat(200_000);
    client.write_file(&id, "/workspace/f", &content, None).await?;
    let read = client.read_file(&id, "/workspace/f").await?;
    // Others write it too, but never half.
    assert!(read.len() == 200_000 && read.iter().all(|b| *b == read[0]), "{} bytes", read.len());
    Ok(())
}

fn choose(book: &Book, dice: &mut Dice) -> Option<String> {
    let told = book.lock().unwrap();
    let count = told.living.len() as u64;
    (count > 0).then(|| told.living.iter().nth(dice.below(count) as usize).cloned())?
}

/// What was promised is there; what else is there may be.
async fn compare(world: &World, server: &Server, book: &Book) {
    let there: BTreeSet<String> = server.ids().await.unwrap().into_iter().collect();
    {
        let mut told = book.lock().unwrap();
        let lost: Vec<_> = told.living.difference(&there).collect();
        assert!(lost.is_empty(), "answered, and lost: {lost:?}\n{}", server.running.log());
        let back: Vec<_> = told.gone.intersection(&there).collect();
        assert!(back.is_empty(), "destroyed, and there again: {back:?}\n{}", server.running.log());
        // A destroy that was begun goes on; one that never arrived did not happen. One that was
        // answered in the gap lives on.
        told.living = there.clone();
        told.doomed.clear();
    }
    let living: Vec<&str> = there.iter().map(String::as_str).collect();
    assert_clean(world, server, &living).await;
}
