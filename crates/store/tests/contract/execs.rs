//! Records of commands.

use store::{CANCELLED, ExecEnd, ExecKind, ExecOutput, ExecPage, ExecRecord, LOST, Limits};
use types::{EndedReason, ExecId, SandboxState};

use crate::bed::{Bed, at, id, owner, sandbox, to};

fn exec(of: u64, name: &str, created: u64) -> ExecRecord {
    ExecRecord {
        sandbox_id: id(of),
        exec_id: ExecId::parse(name).unwrap(),
        tenant_id: None,
        owner_id: owner("me"),
        command: "sleep 1".to_owned(),
        fingerprint: "f".to_owned(),
        kind: ExecKind::Detached,
        run_as: Some("web".to_owned()),
        workdir: Some("/srv".to_owned()),
        tty: true,
        created_at: at(created),
        started_at: None,
        end: None,
    }
}

fn exited(seconds: u64, code: i32) -> ExecEnd {
    ExecEnd {
        at: at(seconds),
        exit_code: Some(code),
        signal: 15,
        timed_out: true,
        oom_killed: true,
        lost: None,
    }
}

fn newest(limit: u32) -> ExecPage {
    ExecPage { limit, ..ExecPage::default() }
}

pub async fn an_id_is_taken_once_and_ends_once(bed: &dyn Bed) {
    let store = bed.open();
    let one = exec(1, "a", 1);
    assert_eq!(store.insert_exec(one.clone()).await.unwrap(), None);
    let second = ExecRecord { command: "other".to_owned(), ..one.clone() };
    assert_eq!(store.insert_exec(second.clone()).await.unwrap(), Some(one.clone()));
    let elsewhere = ExecRecord { sandbox_id: id(2), ..second };
    assert_eq!(store.insert_exec(elsewhere).await.unwrap(), None);
    let (of, name) = (one.sandbox_id.clone(), one.exec_id.clone());
    assert!(store.exec_started(of.clone(), name.clone(), at(2)).await.unwrap());
    assert!(!store.exec_started(of.clone(), name.clone(), at(3)).await.unwrap());
    assert!(!store.forget_exec(of.clone(), name.clone()).await.unwrap(), "it has started");
    assert_eq!(store.running_execs().await.unwrap().len(), 2);
    let end = exited(4, 3);
    store.end_exec(of.clone(), name.clone(), Some(end.clone()), None).await.unwrap();
    store.end_exec(of.clone(), name.clone(), Some(exited(9, 9)), None).await.unwrap();
    let wanted = ExecRecord { started_at: Some(at(2)), end: Some(end), ..one };
    assert_eq!(store.exec(of.clone(), name).await.unwrap(), Some(wanted.clone()));
    assert_eq!(store.insert_exec(exec(1, "b", 5)).await.unwrap(), None);
    let listed = store.execs(of.clone(), newest(10)).await.unwrap();
    assert_eq!(listed, [exec(1, "b", 5), wanted]);
    assert_eq!(store.execs(of.clone(), newest(1)).await.unwrap().len(), 1);
    let b = ExecId::parse("b").unwrap();
    assert!(store.forget_exec(of.clone(), b.clone()).await.unwrap());
    assert_eq!(store.exec(of, b).await.unwrap(), None);
}

pub async fn the_end_of_a_sandbox_is_the_end_of_what_runs_in_it(bed: &dyn Bed) {
    let store = bed.open();
    store.insert_sandbox(sandbox(1), Limits::default(), None).await.unwrap();
    store.insert_exec(exec(1, "ran", 1)).await.unwrap();
    store.insert_exec(exec(1, "runs", 1)).await.unwrap();
    let ran = ExecId::parse("ran").unwrap();
    store.end_exec(id(1), ran, Some(exited(2, 0)), None).await.unwrap();
    let gone =
        store::Change { ended_reason: Some(EndedReason::Oom), ..to(SandboxState::Destroyed) };
    store.change_sandbox(id(1), gone).await.unwrap();
    assert_eq!(store.running_execs().await.unwrap(), []);
    for record in store.execs(id(1), newest(10)).await.unwrap() {
        let end = record.end.unwrap();
        if record.exec_id.as_str() == "ran" {
            assert_eq!(end, exited(2, 0));
        } else {
            assert_eq!((end.exit_code, end.lost.as_deref()), (None, Some("oom")));
            assert_eq!(end.at, at(0), "when the sandbox ended");
        }
    }
}

pub async fn outputs_are_kept_within_bounds_and_purged_with_their_records(bed: &dyn Bed) {
    let store = bed.open();
    let mut output = ExecOutput { first: 7, ..ExecOutput::default() };
    output.push(false, b"out\0\xff");
    output.push(true, b"err");
    let name = |n: u64| ExecId::parse(format!("e{n}")).unwrap();
    for n in 0..70 {
        store.insert_exec(exec(1, name(n).as_str(), n)).await.unwrap();
        let end = Some(exited(n, 0));
        store.end_exec(id(1), name(n), end, Some(output.clone())).await.unwrap();
    }
    let kept = |n: u64| store.exec_output(id(1), name(n));
    assert_eq!(kept(69).await.unwrap(), Some(output.clone()));
    // Two that look at the same time may tell of it in any order.
    let mut older = ExecOutput { first: 9, ..ExecOutput::default() };
    older.push(false, b"older");
    store.end_exec(id(1), name(69), None, Some(older)).await.unwrap();
    assert_eq!(kept(69).await.unwrap(), Some(output.clone()));
    assert_eq!(kept(6).await.unwrap(), Some(output.clone()));
    assert_eq!(kept(5).await.unwrap(), None, "only the newest are kept");
    assert_eq!(store.purge_execs(at(69), 100).await.unwrap(), 69);
    assert_eq!(store.purge_execs(at(69), 100).await.unwrap(), 0);
    assert_eq!(kept(68).await.unwrap(), None);
    assert_eq!(kept(69).await.unwrap(), Some(output));
}

/// A plain one, which belongs to its caller.
fn plain(of: u64, number: u64, end: Option<ExecEnd>) -> ExecRecord {
    ExecRecord {
        fingerprint: String::new(),
        kind: ExecKind::Captured,
        started_at: Some(at(number)),
        end,
        ..exec(of, &format!("p{number:04}"), number)
    }
}

fn lost(why: &str) -> ExecEnd {
    ExecEnd {
        exit_code: None,
        signal: 0,
        timed_out: false,
        oom_killed: false,
        lost: Some(why.to_owned()),
        at: at(9),
    }
}

pub async fn bug_50_plain_records_come_in_any_order_and_end_once(bed: &dyn Bed) {
    let store = bed.open();
    let end = Some(exited(5, 3));
    let (done, runs) = (plain(1, 1, end.clone()), plain(1, 2, None));
    store.record_execs(vec![done.clone(), runs.clone()], 0).await.unwrap();
    // The start of one that is known to have ended changes nothing, nor does another end.
    let late = vec![plain(1, 1, None), plain(1, 1, Some(lost(CANCELLED)))];
    store.record_execs(late, 0).await.unwrap();
    let listed = || store.execs(id(1), newest(10));
    assert_eq!(listed().await.unwrap(), [runs.clone(), done.clone()]);
    assert_eq!(store.running_execs().await.unwrap(), [runs]);
    let ended = plain(1, 2, end.clone());
    store.record_execs(vec![ended.clone()], 0).await.unwrap();
    assert_eq!(listed().await.unwrap(), [ended, done]);
    // One with an id of its caller's is not touched.
    let named = exec(1, "p0003", 3);
    store.insert_exec(named.clone()).await.unwrap();
    store.record_execs(vec![plain(1, 3, end)], 0).await.unwrap();
    let name = named.exec_id.clone();
    assert_eq!(store.exec(id(1), name.clone()).await.unwrap(), Some(named));
    // Why an end is not known, its sandbox says.
    store.insert_sandbox(sandbox(2), Limits::default(), None).await.unwrap();
    let gone =
        store::Change { ended_reason: Some(EndedReason::Oom), ..to(SandboxState::Destroyed) };
    store.change_sandbox(id(2), gone).await.unwrap();
    for (n, why, told) in [(4, LOST, "oom"), (5, CANCELLED, CANCELLED)] {
        store.record_execs(vec![plain(2, n, Some(lost(why)))], 0).await.unwrap();
        let first = store.execs(id(2), newest(1)).await.unwrap().remove(0);
        assert_eq!(first.end.unwrap().lost.as_deref(), Some(told));
    }
    store.record_execs(vec![plain(3, 6, Some(lost(LOST)))], 0).await.unwrap();
    let first = store.execs(id(3), newest(1)).await.unwrap().remove(0);
    assert_eq!(first.end.unwrap().lost.as_deref(), Some(LOST));
}

pub async fn bug_50_the_history_of_a_sandbox_comes_in_pages(bed: &dyn Bed) {
    let store = bed.open();
    let mut wanted = Vec::new();
    for n in 0..20 {
        // Many at the same time; every third one runs.
        let end = (n % 3 != 0).then(|| exited(n, 0));
        let record = ExecRecord { created_at: at(n / 7), ..plain(1, n, end) };
        store.record_execs(vec![record.clone()], 0).await.unwrap();
        store.record_execs(vec![plain(2, n, None)], 0).await.unwrap();
        wanted.insert(0, record);
    }
    for (limit, running) in [(1, false), (7, false), (20, false), (21, false), (2, true), (9, true)]
    {
        let meant = wanted.iter().filter(|r| !running || r.end.is_none());
        let meant: Vec<_> = meant.cloned().collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.execs(id(1), ExecPage { running, after, limit }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.created_at, last.exec_id.clone()));
            assert!(page.len() <= limit as usize);
            seen.extend(page);
        }
        assert_eq!(seen, meant, "by {limit}");
    }
}

pub async fn bug_32_of_plain_records_a_sandbox_keeps_the_newest(bed: &dyn Bed) {
    let store = bed.open();
    let ids = async |of| {
        let all = store.execs(id(of), newest(100)).await.unwrap();
        all.into_iter().map(|r| r.exec_id.to_string()).collect::<Vec<_>>()
    };
    let named = exec(1, "named", 0);
    store.insert_exec(named).await.unwrap();
    store.end_exec(id(1), ExecId::parse("named").unwrap(), Some(exited(0, 0)), None).await.unwrap();
    store.record_execs(vec![plain(1, 1, None)], 3).await.unwrap();
    for n in 2..12 {
        let both = vec![plain(1, n, Some(exited(n, 0))), plain(2, n, Some(exited(n, 0)))];
        store.record_execs(both, 3).await.unwrap();
    }
    // One that runs counts, and stays; one that its id keeps does neither.
    assert_eq!(ids(1).await, ["p0011", "p0010", "p0001", "named"]);
    assert_eq!(ids(2).await, ["p0011", "p0010", "p0009"]);
    // The count is kept through purges, and an id that is known is counted once.
    assert_eq!(store.purge_execs(at(11), 100).await.unwrap(), 4);
    let again = vec![plain(2, 11, Some(exited(11, 0))), plain(2, 12, Some(exited(12, 0)))];
    store.record_execs(again, 2).await.unwrap();
    assert_eq!(ids(2).await, ["p0012", "p0011"]);
    for n in 20..30 {
        store.record_execs(vec![plain(2, n, Some(exited(n, 0)))], 0).await.unwrap();
    }
    assert_eq!(ids(2).await.len(), 12, "without a bound");
    store.record_execs(vec![plain(2, 30, Some(exited(30, 0)))], 1).await.unwrap();
    assert_eq!(ids(2).await, ["p0030"], "a lower bound holds from the next one on");
}
