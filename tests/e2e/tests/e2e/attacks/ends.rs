//! Outliving a destroy.

use std::process::Stdio;
use std::time::Duration;

use client::api;
use testkit::wait_for;

use super::control;
use super::ground::{ATTACKER, Ground, IMAGE, Target};
use super::processes::{mark, on_the_host};

const SOON: Duration = Duration::from_secs(10);

async fn gone(mark: &str, when: &str) {
    wait_for(when, SOON, async || match on_the_host(mark) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}

/// Leaves what does not want to go, and sees that it is there.
async fn leave(target: &Target<'_>, mark: &str) {
    let seen = target.try_one(&format!("outlive={mark}")).await;
    assert_eq!(seen.words, "held:0 left");
    let left = on_the_host(mark);
    assert!(left.len() >= 4, "that is no test: {left:?}");
}

#[tokio::test]
async fn nothing_outlives_a_destroy() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for (n, grace) in [(11, None), (12, Some(Duration::from_secs(1)))] {
        let target = ground.spawn(IMAGE).await;
        let mark = mark(n);
        leave(&target, &mark).await;
        target.is_well().await;
        ground.client().destroy(&target.id, grace).await.unwrap();
        // Destroyed means destroyed: not a little later.
        assert_eq!(on_the_host(&mark), [], "after a destroy with grace {grace:?}");
    }
    ground.end().await;
}

#[tokio::test]
async fn nothing_outlives_its_time() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let mark = mark(13);
    let short = api::SpawnRequest { ttl: Some("2s".into()), ..Default::default() };
    let target = ground.spawn_as(short).await;
    leave(&target, &mark).await;
    gone(&mark, "the end of its time").await;
    ground.end().await;
}

/// What a command leaves behind ends with the command when that is called off, and with `run`.
#[tokio::test]
async fn nothing_outlives_run() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let (ended, killed) = (mark(14), mark(15));
    let run = |script: String| {
        let mut command = ground.system().command(&["run", "--image", IMAGE, "--", "sh", "-c"]);
        command.arg(script).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let done = run(format!("{ATTACKER} outlive={ended}")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("outlive={ended} held:0 left\n"));
    assert_eq!(on_the_host(&ended), []);

    let mut child = run(format!("{ATTACKER} outlive={killed}; sleep 600")).spawn().unwrap();
    wait_for("it to be there", SOON, async || match on_the_host(&killed).len() {
        0..4 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&killed, "the end of what a killed `run` left").await;
    // Its folders are the next one's to sweep.
    assert!(run("true".to_owned()).output().unwrap().status.success());
    ground.end().await;
}
