//! Crashes at moments that nobody chose, under load: what was promised to a client holds.
//!
//! `scripts/soak` runs the long one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use client::api::SpawnRequest;
use client::{Client, Error};
use rustix::process::Signal;
use testkit::wait_for;

use super::doors;
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
    /// Detached commands that were acknowledged, each with its sandbox.
    commands: Vec<(String, String)>,
    /// Calls that had an answer.
    answers: u64,
    /// Numbers that were given out.
    used: u64,
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
        let server = match round % 3 {
            2 => with_a_warm_pool(&mut world, server).await,
            _ => server,
        };
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

/// Nobody asks for it: the look at the slate would find what waits.
async fn with_a_warm_pool(world: &mut World, server: Server) -> Server {
    server.stop().await;
    world.system.env("STACYVM_DEFAULTS_WARM_POOL", "3");
    let server = world.start().await;
    world.system.unset_env("STACYVM_DEFAULTS_WARM_POOL");
    server
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
        let done = match dice.below(14) {
            0..4 => spawn(client, book).await,
            4..7 => destroy(client, book, &mut dice).await,
            7 => write(client, book, &mut dice).await,
            8..10 => exec(client, book, &mut dice).await,
            10 => detached(client, book, &mut dice).await,
            door => other(client, book, &mut dice, door).await,
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

/// By a door of those that came later.
async fn other(client: &Client, book: &Book, dice: &mut Dice, door: u64) -> Result<(), Error> {
    let Some(id) = choose(book, dice) else { return Ok(()) };
    let number = dice.below(4);
    match door {
        11 => doors::content(client, &id, number as u8).await,
        12 => doors::archive(client, &id, &format!("/workspace/tree-{}", next(book))).await,
        _ => doors::terminal(client, &id, number > 1).await,
    }
}

/// A number that nobody else has.
fn next(book: &Book) -> u64 {
    let mut told = book.lock().unwrap();
    told.used += 1;
    told.used
}

async fn detached(client: &Client, book: &Book, dice: &mut Dice) -> Result<(), Error> {
    let Some(id) = choose(book, dice) else { return Ok(()) };
    let exec_id = format!("run-{}", next(book));
    doors::detached(client, &id, &exec_id).await?;
    book.lock().unwrap().commands.push((id, exec_id));
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
    // Those of the rest ended with their sandbox.
    let commands = std::mem::take(&mut book.lock().unwrap().commands);
    for (id, exec_id) in commands.iter().filter(|(id, _)| there.contains(id)) {
        doors::ran_once(&server.client, id, exec_id).await;
    }
    let living: Vec<&str> = there.iter().map(String::as_str).collect();
    assert_clean(world, server, &living).await;
}
