//! Records of commands.

use store::{ExecEnd, ExecOutput, ExecRecord, Limits};
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
        run_as: Some("web".to_owned()),
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
    let listed = store.execs(of.clone(), 10).await.unwrap();
    assert_eq!(listed, [exec(1, "b", 5), wanted]);
    assert_eq!(store.execs(of.clone(), 1).await.unwrap().len(), 1);
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
    for record in store.execs(id(1), 10).await.unwrap() {
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
