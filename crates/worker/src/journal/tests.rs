//! The journal: what is written is what is read, whatever a crash cut off.

use proptest::prelude::*;
use types::clock::BootTime;
use types::{SandboxId, SandboxSize, Timestamp};

use super::super::record::Line;
use super::*;

fn intent() -> Intent {
    Intent {
        sandbox_id: SandboxId::from_random([3; 20]),
        provider: "mock".into(),
        image: "host".into(),
        size: SandboxSize { memory_mb: 64, vcpus: 1, disk_size_mb: 64 },
        owner_id: Some("o".into()),
        generation: 4,
        installation_id: "here".into(),
        boot_id: "b".into(),
        created_at: Timestamp::from_unix_nanos(5),
        started: BootTime::from_nanos(1),
        expires_at: Timestamp::from_unix_nanos(9_000_000_000),
        deadline: BootTime::from_nanos(9),
        warm: false,
    }
}

fn runtime() -> Runtime {
    Runtime {
        id: SandboxId::from_random([3; 20]),
        dir: "/x".into(),
        facts: serde_json::json!({ "pid": 7, "text": "a\nb" }),
    }
}

fn lines(steps: &[Step]) -> Vec<Vec<u8>> {
    let line = |step| {
        let mut text = serde_json::to_vec(&Line { v: VERSION, step }).unwrap();
        text.push(b'\n');
        text
    };
    steps.iter().map(line).collect()
}

fn all_steps() -> Vec<Step> {
    vec![
        Step::Intent(intent()),
        Step::Running { runtime: runtime() },
        Step::Extended {
            generation: 5,
            expires_at: Timestamp::from_unix_nanos(20_000_000_000),
            deadline: BootTime::from_nanos(20),
        },
        Step::Returned {
            expires_at: Timestamp::from_unix_nanos(20_000_000_000),
            deadline: BootTime::from_nanos(20),
        },
        Step::Dead { reason: EndedReason::Oom },
        Step::Destroying { reason: EndedReason::Expired },
    ]
}

#[test]
fn the_last_line_wins() {
    let text = lines(&all_steps()).concat();
    let r = replay(&text).unwrap();
    assert_eq!(r.last, Last::Destroying(EndedReason::Expired));
    assert_eq!(r.runtime, Some(runtime()));
    assert_eq!((r.intent.generation, r.intent.deadline), (5, BootTime::from_nanos(20)));
    assert!(!r.torn);
}

#[test]
fn what_waits_in_the_pool_is_told_from_what_was_taken() {
    let steps = all_steps();
    let waiting = Step::Intent(Intent { warm: true, ..intent() });
    let told = |steps: &[Step]| {
        let seen = replay(&lines(steps).concat()).unwrap();
        (seen.intent.warm, seen.taken)
    };
    let [_, running, taken, returned, ..] = &steps[..] else { panic!("{steps:?}") };
    let all = [waiting, running.clone(), taken.clone(), returned.clone(), taken.clone()];
    assert_eq!(told(&all[..2]), (true, false));
    assert_eq!(told(&all[..3]), (false, true));
    assert!(told(&all[..4]).0);
    assert_eq!(told(&all), (false, true));
    // One that was extended, and never in a pool.
    assert_eq!(told(&steps[..3]), (false, false));
}

#[test]
fn newer_steps_are_skipped_and_newer_versions_refused() {
    let mut text = lines(&all_steps()[..2]).concat();
    text.extend_from_slice(b"{\"v\":1,\"step\":{\"paused\":{}}}\n");
    assert_eq!(replay(&text).unwrap().last, Last::Running);
    text.extend_from_slice(b"{\"v\":2,\"step\":{}}\n");
    assert!(matches!(replay(&text), Err(Unreadable::Newer(2))));
}

proptest! {
    /// Wherever a crash cuts the file, what whole lines said before still holds, and a line that is
    /// appended after mending is understood.
    #[test]
    fn a_torn_line_costs_nothing_else(cut in 0usize..4000) {
        let parts = lines(&all_steps());
        let text = parts.concat();
        let cut = cut % (text.len() + 1);
        let mut whole = 0;
        let mut end = 0;
        for part in &parts {
            // A line that lacks only its end of line is whole as JSON.
            if end + part.len() - 1 <= cut { whole += 1 }
            end += part.len();
        }
        let torn = &text[..cut];
        let seen = replay(torn);
        if whole == 0 {
            prop_assert!(matches!(seen, Err(Unreadable::Nothing)));
        } else {
            let mut want = replay(&parts[..whole].concat()).unwrap();
            let seen = seen.unwrap();
            want.torn = torn.last() != Some(&b'\n');
            prop_assert_eq!(&seen, &want);
            let mut more = torn.to_vec();
            if seen.torn { more.push(b'\n') }
            more.extend_from_slice(&lines(&[Step::Destroying { reason: EndedReason::Crashed }])[0]);
            let last = replay(&more).unwrap().last;
            prop_assert_eq!(last, Last::Destroying(EndedReason::Crashed));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = replay(&bytes);
    }
}
