//! Kills the server at every named step, starts it again, and looks.
//!
//! The steps come from the code: one that no arm here knows fails the test.

use std::os::unix::process::ExitStatusExt;

use client::api::SpawnRequest;
use rustix::process::Signal;
use testkit::{Running, wait_for};
use types::failpoint;

use super::slate::assert_clean;
use super::world::{SOON, Server, World, in_time, shell};

/// A command that goes on whatever becomes of the server, and never stops writing.
const TICKER: &str =
    "i=0; while :; do i=$((i+1)); echo $i; echo $i > t; mv t ticks; sleep 0.02; done";
/// Larger than what fits into one message to the agent.
const LARGE: usize = 1_500_000;

#[tokio::test]
async fn native_survives_a_kill_at_every_step() {
    walk("native").await;
}

#[tokio::test]
async fn mock_survives_a_kill_at_every_step() {
    walk("mock").await;
}

async fn walk(provider: &'static str) {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no steps to be killed at");
        return;
    }
    let mut walk = Walk { world: World::bare(provider), resident: String::new(), ticks: 0 };
    for (n, point) in failpoint::ALL.iter().enumerate() {
        if provider == "mock" && (point.starts_with("native.") || point.starts_with("storage.")) {
            continue;
        }
        if !walk.at(point).await {
            continue;
        }
        // Now by a crash, now in order.
        let signal = if n % 2 == 0 { Signal::KILL } else { Signal::TERM };
        walk.check(point, signal).await;
    }
    walk.end().await;
}

struct Walk {
    world: World,
    /// A sandbox that lives through all of it. Empty before the first.
    resident: String,
    ticks: u64,
}

impl Walk {
    /// Ends a server at that step; `false` if another test does.
    async fn at(&mut self, point: &str) -> bool {
        match point {
            "native.claimed" | "storage.written" | "storage.made" | "storage.attached"
            | "storage.mounted" => {
                // The store is made once.
                self.world = World::bare(self.world.provider);
                self.starting(point).await;
            }
            "adopt.scan" => {
                self.settle().await;
                self.starting(point).await;
            }
            "adopt.taken" | "adopt.swept" => self.starting(point).await,
            "control.inserted" | "spawn.folder" | "spawn.journaled" | "spawn.prepared"
            | "native.layered" | "spawn.listening" | "spawn.ordered" | "spawn.created"
            | "spawn.greeted" | "spawn.running" | "control.spawned" | "control.answered" => {
                self.spawning(point).await;
            }
            "exec.ordered" | "exec.started" | "exec.output" | "exec.ended" => {
                self.running(point).await;
            }
            "write.ordered" | "write.started" | "write.piece" | "write.finished" => {
                self.writing(point).await;
            }
            "control.intended"
            | "destroy.journaled"
            | "destroy.ended"
            | "destroy.ordered"
            | "destroy.released"
            | "destroy.killed"
            | "destroy.unjournaled"
            | "destroy.removed"
            | "control.destroyed"
            | "control.closed" => self.destroying(point).await,
            // Of a server with a warm pool: see `warm`.
            "pool.journaled" | "pool.taken" => return false,
            // Of another process: see `imports`.
            "images.unpacked" | "images.layer_placed" | "images.manifest_placed" => return false,
            // Those of the images' own tests.
            "pull.resolved" | "pull.unpacked" | "pull.placed" | "pull.layers" | "pull.recorded"
            | "pull.named" => return false,
            // Of a client: see `terminals`.
            "terminal.shown" => return false,
            _ => panic!("no test ends a server at {point}"),
        }
        true
    }

    /// Makes the resident, and leaves it to itself.
    async fn settle(&mut self) {
        if self.world.provider == "native" {
            self.world.import(super::world::IMAGE);
        }
        let server = self.world.start().await;
        self.resident = server.spawn().await;
        let mut lines = server.stream(&self.resident, TICKER).await;
        in_time("a tick", lines.next()).await.unwrap();
        server.kill().await;
    }

    async fn starting(&mut self, point: &str) {
        died(point, self.world.launch_with(point)).await;
    }

    async fn spawning(&mut self, point: &str) {
        let server = self.world.start_with(point).await;
        let asked = in_time("a spawn", server.client.spawn(&SpawnRequest::default())).await;
        assert!(asked.is_err(), "{point}: {asked:?}");
        died(point, server.running).await;
        if point == "control.answered" {
            // It is marked as answered: nobody knows better, it lives until its time is up.
            let server = self.world.start().await;
            let mut ids = server.ids().await.unwrap();
            ids.retain(|id| *id != self.resident);
            let [late] = &ids[..] else { panic!("{point}: {ids:?}") };
            assert_clean(&self.world, &server, &[&self.resident, late]).await;
            server.destroy(late).await;
            server.stop().await;
        }
    }

    async fn running(&mut self, point: &str) {
        let server = self.world.start_with(point).await;
        let code = 10
            + ["exec.started", "exec.output", "exec.ended"]
                .iter()
                .position(|p| *p == point)
                .unwrap_or(3);
        // More than a pipe and a window hold: nobody reads it, and it ends all the same.
        let script = format!(
            "echo begun; sleep 0.2; head -c 3000000 /dev/zero; echo end > {point}; exit {code}"
        );
        let asked = in_time("an exec", server.client.exec(&self.resident, &shell(&script))).await;
        assert!(asked.is_err(), "{point}: {asked:?}");
        died(point, server.running).await;
        let server = self.world.start().await;
        if point == "exec.ordered" {
            assert_ne!(server.sh(&self.resident, &format!("ls {point}")).await.exit_code, 0);
        } else {
            wait_for("the command's end", SOON, async || {
                let logs =
                    server.client.logs(&self.resident, 100).await.map_err(|e| e.to_string())?;
                match logs.iter().any(|l| l.ends_with(&format!("exited: {code}"))) {
                    true => Ok(()),
                    false => Err(logs.join("\n")),
                }
            })
            .await;
            assert_eq!(
                server.said(&self.resident, &format!("cat {point} && rm {point}")).await,
                "end"
            );
        }
        server.kill().await;
    }

    async fn writing(&mut self, point: &str) {
        let server = self.world.start().await;
        server.client.write_file(&self.resident, "/workspace/w/f", "old", None).await.unwrap();
        server.kill().await;
        let server = self.world.start_with(point).await;
        let new = "n".repeat(LARGE);
        let asked = server.client.write_file(&self.resident, "/workspace/w/f", &new, None);
        let asked = in_time("a write", asked).await;
        assert!(asked.is_err(), "{point}: {asked:?}");
        died(point, server.running).await;
        let server = self.world.start().await;
        let size = if point == "write.finished" { LARGE } else { "old".len() };
        wait_for("the file to be whole and alone", SOON, async || {
            let seen = server.said(&self.resident, "ls -A w; wc -c < w/f").await;
            if seen == format!("f\n{size}") { Ok(()) } else { Err(seen) }
        })
        .await;
        server.kill().await;
    }

    async fn destroying(&mut self, point: &str) {
        let server = self.world.start_with(point).await;
        let victim = server.spawn().await;
        server.said(&victim, "sleep 612.5 > /dev/null 2>&1 &").await;
        let agent = self.world.agent_of(&victim);
        let asked = in_time("a destroy", server.client.destroy(&victim, None)).await;
        assert!(asked.is_err(), "{point}: {asked:?}");
        died(point, server.running).await;
        let server = self.world.start().await;
        let gone = server.client.get(&victim).await.expect_err(point);
        assert_eq!(gone.status(), Some(404), "{point}: {gone}");
        assert!(gone.to_string().contains("destroyed"), "{point}: {gone}");
        assert!(!agent.is_alive(), "{point}");
        server.kill().await;
    }

    /// A server that starts finds all as it should be.
    async fn check(&mut self, point: &str, end: Signal) {
        println!("{}: {point}", self.world.provider);
        if self.resident.is_empty() {
            let server = self.world.start().await;
            assert_clean(&self.world, &server, &[]).await;
            if self.world.provider == "native" && rustix::process::geteuid().is_root() {
                self.on_disk(&server).await;
            }
            server.stop().await;
            self.world.assert_nothing_left().await;
            return;
        }
        let server = self.world.start().await;
        assert_clean(&self.world, &server, &[&self.resident]).await;
        self.ticks = wait_for("the resident to go on", SOON, async || {
            let ticks = server.said(&self.resident, "cat ticks").await;
            ticks.parse::<u64>().ok().filter(|t| *t > self.ticks).ok_or(ticks)
        })
        .await;
        server.end_by(end).await;
    }

    /// What a crash left of the disk store is usable, or was made anew.
    async fn on_disk(&self, server: &Server) {
        let native = server.client.provider("native").await.unwrap();
        assert_eq!(native.config.get("storage").map(String::as_str), Some("disk"));
    }

    async fn end(mut self) {
        let server = self.world.start().await;
        server.destroy(&self.resident).await;
        server.stop().await;
        self.world.assert_nothing_left().await;
    }
}

async fn died(point: &str, mut server: Running) {
    let status = server.exit(SOON).await;
    assert_eq!(status.signal(), Some(9), "{point}: the server came past it:\n{}", server.log());
}
