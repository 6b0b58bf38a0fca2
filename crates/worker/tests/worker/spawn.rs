//! Spawning: once, whole or not at all, whoever waits for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::worker::{Spawned, WorkerLink};
use types::{EndedReason, ErrorCode, SandboxState, WorkerId};

use crate::support::{Lie, Step, World, id, run, wait_for, within};

#[tokio::test]
async fn a_spawned_sandbox_runs_commands_and_a_destroyed_one_leaves_nothing() {
    let world = World::new();
    let worker = world.start().await;
    let id = world.spawn(&worker, 1).await;
    let (output, end) = run(&worker, &id, &["echo", "hi"]).await;
    assert_eq!((output.as_slice(), end.unwrap().exit_code), (b"hi".as_slice(), 3));
    let fact = worker.status(id.clone()).await.unwrap().unwrap();
    assert_eq!((fact.state, fact.generation, fact.reason), (SandboxState::Running, 1, None));
    world.destroy(&worker, &id).await.unwrap();
    world.assert_gone(&id);
    assert_eq!(worker.status(id.clone()).await.unwrap(), None);
    assert!(worker.inventory().await.unwrap().is_empty());
    let after = worker
        .exec(crate::support::command(&id, &["echo", "x"]), protocol::worker::Stdin::Empty)
        .await
        .err()
        .unwrap();
    assert_eq!(after.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn the_agent_outlives_the_deadline_by_the_grace_only() {
    let mut world = World::new();
    world.config.tied = true;
    let worker = world.start().await;
    world.spawn(&worker, 1).await;
    let spec = world.provider.last_spec.lock().unwrap().clone().unwrap();
    let start = types::clock::Clock::boot(&*world.clock);
    assert_eq!(spec.deadline, start.saturating_add(Duration::from_secs(602)));
    assert!(spec.tied);
}

#[tokio::test]
async fn the_same_order_makes_one_sandbox() {
    let world = World::new();
    let worker = world.start().await;
    world.provider.hold_creates();
    let order = world.order(&id(1));
    let all = async {
        tokio::join!(
            worker.spawn(order.clone()),
            worker.spawn(order.clone()),
            worker.spawn(order.clone())
        )
    };
    let release = async {
        wait_for("the create", async || {
            (world.provider.creates.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        world.provider.create_permits.add_permits(1);
    };
    let ((a, b, c), ()) = within("the spawns", async { tokio::join!(all, release) }).await;
    let same = Spawned { runtime_id: None };
    assert_eq!([a.unwrap(), b.unwrap(), c.unwrap()], [same.clone(), same.clone(), same.clone()]);
    assert_eq!(worker.spawn(order).await.unwrap(), same);
    assert_eq!(world.provider.creates.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bug_21_leases_are_checked() {
    let world = World::new();
    let worker = world.start().await;
    let mut orders = vec![world.order(&id(1)), world.order(&id(1)), world.order(&id(1))];
    orders[0].lease.holder_id = WorkerId::parse("other").unwrap();
    orders[1].lease.resource_id = id(2);
    orders[2].lease.expires_at = types::clock::Clock::wall(&*world.clock);
    for order in orders {
        assert_eq!(worker.spawn(order).await.unwrap_err().code, ErrorCode::Conflict);
    }
    let mut order = world.order(&id(1));
    order.lease.generation = 5;
    worker.spawn(order.clone()).await.unwrap();
    order.lease.generation = 4;
    assert_eq!(worker.spawn(order).await.unwrap_err().code, ErrorCode::Conflict);
    let old = world.lease(&id(1), 4);
    let destroyed = worker.destroy(id(1), old.clone(), EndedReason::Destroyed, None).await;
    assert_eq!(destroyed.unwrap_err().code, ErrorCode::Conflict);
    let later = old.expires_at;
    assert_eq!(worker.extend(id(1), old, later).await.unwrap_err().code, ErrorCode::Conflict);
    let new = world.lease(&id(1), 6);
    worker.destroy(id(1), new, EndedReason::Destroyed, None).await.unwrap();
    world.assert_gone(&id(1));
}

#[tokio::test]
async fn a_spawn_that_fails_anywhere_leaves_nothing() {
    let world = World::new();
    let worker = world.start().await;
    for (n, step) in [Step::Prepare, Step::Create, Step::Connect].into_iter().enumerate() {
        let id = id(n as u16);
        world.provider.fail(step, 1);
        let fault = worker.spawn(world.order(&id)).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::Unavailable, "{step:?}");
        world.assert_gone(&id);
        assert_eq!(worker.status(id.clone()).await.unwrap(), None);
        worker.spawn(world.order(&id)).await.unwrap();
    }
    for lie in [Lie::OtherSandbox, Lie::NewerProtocol, Lie::NoFrames, Lie::HangsUp] {
        *world.provider.lie.lock().unwrap() = lie;
        let fault = within("a refused agent", worker.spawn(world.order(&id(9)))).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::Unavailable, "{lie:?}");
        world.assert_gone(&id(9));
    }
}

#[tokio::test]
async fn a_spawn_goes_on_when_its_caller_leaves() {
    let world = World::new();
    let worker = world.start().await;
    world.provider.hold_creates();
    let order = world.order(&id(1));
    let gone = tokio::time::timeout(Duration::from_millis(1), worker.spawn(order)).await;
    assert!(gone.is_err());
    world.provider.create_permits.add_permits(1);
    wait_for("the sandbox", async || {
        let fact = worker.status(id(1)).await.unwrap()?;
        (fact.state == SandboxState::Running).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_destroy_ends_a_spawn_under_way_and_nobody_else_waits() {
    let world = World::new();
    let worker = world.start().await;
    world.provider.hold_creates();
    let spawn = worker.spawn(world.order(&id(1)));
    let other = async {
        wait_for("the create", async || {
            (world.provider.creates.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        // The one that hangs holds up no other sandbox, nor a look at itself.
        let fact = worker.status(id(1)).await.unwrap().unwrap();
        assert_eq!(fact.state, SandboxState::Creating);
        world.destroy(&worker, &id(7)).await.unwrap();
        let id = id(1);
        let destroy = world.destroy(&worker, &id);
        let release = async {
            tokio::task::yield_now().await;
            world.provider.create_permits.add_permits(1);
        };
        tokio::join!(destroy, release).0.unwrap();
    };
    let (spawned, ()) = within("both", async { tokio::join!(spawn, other) }).await;
    assert_eq!(spawned.unwrap_err().code, ErrorCode::Conflict);
    world.assert_gone(&id(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let world = World::new();
    let worker = world.start().await;
    let all = (0..100).map(|n| {
        let (world, worker) = (&world, &worker);
        async move {
            let id = world.spawn(worker, n).await;
            run(worker, &id, &["echo", "x"]).await.1.unwrap();
            world.destroy(worker, &id).await.unwrap();
            world.assert_gone(&id);
        }
    });
    within("a hundred sandboxes", futures_util::future::join_all(all)).await;
}

#[tokio::test]
async fn an_order_that_is_over_before_it_begins_is_refused() {
    let world = World::new();
    let worker = world.start().await;
    let mut order = world.order(&id(1));
    order.expires_at = types::clock::Clock::wall(&*world.clock);
    assert_eq!(worker.spawn(order).await.unwrap_err().code, ErrorCode::BadRequest);
    let mut order = world.order(&id(1));
    order.provider = "docker".to_owned();
    assert_eq!(worker.spawn(order).await.unwrap_err().code, ErrorCode::NotFound);
    world.assert_gone(&id(1));
}

#[tokio::test]
async fn a_destroy_does_not_wait_for_an_image() {
    let world = World::new();
    let worker = world.start().await;
    world.provider.hold_prepares();
    let id = id(1);
    let destroy = async {
        wait_for("the journal", async || world.folder(&id).join("journal").exists().then_some(()))
            .await;
        world.destroy(&worker, &id).await.unwrap();
    };
    let both = async { tokio::join!(worker.spawn(world.order(&id)), destroy) };
    assert_eq!(within("both", both).await.0.unwrap_err().code, ErrorCode::Conflict);
    world.assert_gone(&id);
}

#[tokio::test]
async fn what_lies_in_the_way_is_not_undone_with_a_spawn() {
    let world = World::new();
    let worker = world.start().await;
    let id = id(1);
    std::fs::create_dir(world.folder(&id)).unwrap();
    assert_eq!(worker.spawn(world.order(&id)).await.unwrap_err().code, ErrorCode::Conflict);
    assert!(world.folder(&id).exists());
    assert_eq!(world.provider.destroys.load(Ordering::SeqCst), 0);
    assert_eq!(worker.status(id).await.unwrap(), None);
}
