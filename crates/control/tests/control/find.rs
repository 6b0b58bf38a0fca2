//! Lists by what callers see, and pruning by it.

use std::time::Duration;

use control::{Finding, SpawnInput};
use types::{EndedReason, Sandbox, SandboxState};

use crate::support::{System, config, row};

fn by(state: SandboxState) -> Finding {
    Finding { state: Some(state), ..Finding::default() }
}

#[tokio::test(start_paused = true)]
async fn each_state_is_found_as_it_is_shown() {
    let s = System::unstarted(config(), Default::default(), Default::default());
    s.heartbeat("local").await;
    // One sandbox in each state, and one whose time is up.
    for (n, state) in SandboxState::ALL.into_iter().enumerate() {
        s.plant(&format!("sb-{n}"), state);
    }
    s.store.put(Sandbox { expires_at: s.clock_past(), ..row("sb-late") });
    let shown = s.control.sandboxes(&s.ctx).await.unwrap();
    for state in SandboxState::ALL {
        let found = s.control.find(&s.ctx, &by(state), None, None).await.unwrap();
        let mut ids: Vec<_> = found.iter().map(|f| f.id.clone()).collect();
        if state == SandboxState::Destroyed {
            assert_eq!(ids.len(), 1);
            continue;
        }
        let wanted = shown.iter().filter(|f| f.state == state).map(|f| f.id.clone());
        let mut wanted: Vec<_> = wanted.collect();
        // A record that says `expired` while there is time left is none that is due.
        wanted.retain(|id| state != SandboxState::Expired || id.as_str() == "sb-late");
        wanted.sort();
        ids.sort();
        assert_eq!(ids, wanted, "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_hold_what_is_asked_for_and_end() {
    let s = System::start().await;
    for n in 0..7 {
        let metadata = [("job".to_owned(), (n % 2).to_string())].into();
        s.control.spawn(&s.ctx, SpawnInput { metadata, ..SpawnInput::default() }).await.unwrap();
        s.clock.advance(Duration::from_secs(1));
    }
    let finding = Finding {
        labels: vec![("job".to_owned(), "0".to_owned())],
        state: Some(SandboxState::Running),
        ..Finding::default()
    };
    let all = s.control.find(&s.ctx, &finding, None, None).await.unwrap();
    assert_eq!(all.len(), 4);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = s.control.find(&s.ctx, &finding, after, Some(3)).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.clone()));
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

#[tokio::test(start_paused = true)]
async fn prune_takes_what_is_named_and_nothing_else() {
    let s = System::start().await;
    let labelled = |job: &str| SpawnInput {
        metadata: [("job".to_owned(), job.to_owned())].into(),
        ..SpawnInput::default()
    };
    let a = s.control.spawn(&s.ctx, labelled("a")).await.unwrap();
    let b = s.control.spawn(&s.ctx, labelled("b")).await.unwrap();
    let job = |job: &str, state| Finding {
        labels: vec![("job".to_owned(), job.to_owned())],
        state,
        provider: None,
    };
    let prune = |finding| s.control.prune(&s.ctx, finding);
    // Without a state only those whose time is up are meant.
    assert_eq!(prune(job("a", None)).await.unwrap(), 0);
    assert_eq!(prune(job("c", Some(SandboxState::Running))).await.unwrap(), 0);
    assert_eq!(prune(by(SandboxState::Destroyed)).await.unwrap(), 0);
    assert_eq!(prune(job("a", Some(SandboxState::Running))).await.unwrap(), 1);
    assert_eq!(s.store.row(&a.id).ended_reason, Some(EndedReason::Destroyed));
    assert_eq!(s.store.row(&b.id).state, SandboxState::Running);
    let other = Finding { provider: Some("other".to_owned()), ..by(SandboxState::Running) };
    assert_eq!(prune(other).await.unwrap(), 0);
    assert_eq!(prune(by(SandboxState::Running)).await.unwrap(), 1);
    s.is_clean().await;
}
