//! The plain attacks: all held inside, and all through without the wall.

use super::control::{self, Control};
use super::ground::{Ground, IMAGE, Target};
use super::program::{Verdict, known};
use super::table::{ELSEWHERE, ROOMS, Row};

fn rows() -> impl Iterator<Item = &'static Row> {
    ROOMS.iter().flat_map(|room| room.iter())
}

fn judge(row: &Row, seen: &Verdict) -> Option<String> {
    assert_eq!(row.attack, seen.attack);
    let held = seen.error().is_some_and(|error| row.held.contains(&error));
    (!held).then(|| format!("{}: {}, not {:?}", row.attack, seen.words, row.held))
}

async fn all_are_held(target: &Target<'_>, what: &str) {
    let attacks: Vec<&str> = rows().map(|row| row.attack).collect();
    let seen = target.attack(&attacks).await;
    let wrong: Vec<String> = rows().zip(&seen).filter_map(|(row, seen)| judge(row, seen)).collect();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    target.is_well().await;
}

#[tokio::test]
async fn every_plain_attack_is_held() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    all_are_held(&ground.spawn(IMAGE).await, "in an imported image").await;
    all_are_held(&ground.spawn("host").await, "in the image host").await;
    ground.end().await;
}

/// A user inside who is not root has no more.
#[tokio::test]
async fn nor_does_somebody_else_get_through() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let attacks: Vec<&str> = rows().map(|row| row.attack).collect();
    let words = [&[target.program(), "as=65534"], attacks.as_slice()].concat();
    let out = target.exec(&words, "1m").await.unwrap().stdout;
    let through: Vec<&str> = out.lines().filter(|line| !line.contains(" held:")).collect();
    assert_eq!(through, [""; 0]);
    assert_eq!(out.lines().count(), attacks.len(), "{out}");
    ground.end().await;
}

#[test]
fn every_plain_attack_works_without_its_wall() {
    if !control::possible() {
        return;
    }
    let mut wrong = Vec::new();
    for row in rows() {
        if let Control::Nowhere(why) = row.control {
            println!("no control for {}: {why}", row.attack);
            continue;
        }
        let seen = row.control.run(&[row.attack]).expect("there is one");
        wrong.extend(seen.iter().filter(|v| !v.broke()).map(|v| format!("{v:?}")));
    }
    assert!(wrong.is_empty(), "held by something else:\n{}", wrong.join("\n"));
}

/// Nothing that the program can do goes untried.
#[test]
fn every_attack_has_a_test() {
    let tried = |name: &str| {
        let plain = rows().any(|row| row.attack.split('=').next() == Some(name));
        plain || ELSEWHERE.contains(&name)
    };
    let untried: Vec<String> = known().into_iter().filter(|name| !tried(name)).collect();
    assert_eq!(untried, [""; 0]);
}
