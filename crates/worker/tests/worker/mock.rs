//! The worker on the mock provider: real processes, the real agent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use protocol::worker::{
    AttachOrder, ExecControl, ExecEvent, ExecOrder, FileOp, FileReply, Stdin, WorkerLink,
};
use providers::Provider;
use providers::mock::{MockConfig, MockProvider};
use types::clock::{SharedClock, SystemClock};
use types::{EndedReason, ErrorCode, ExecId, SandboxId, SandboxState, WorkerId};
use worker::{Providers, Worker, WorkerConfig};

use crate::support::{FakeControl, World, collect, command, forgotten, id, run, within};

struct Mock {
    world: World,
    clock: SharedClock,
    provider: Arc<MockProvider>,
}

impl Mock {
    async fn new() -> Self {
        let mut world = World::new();
        let worker = WorkerId::parse("w1").unwrap();
        world.config = WorkerConfig::new(worker, world.config.dir.clone(), "worker-tests");
        let clock: SharedClock = Arc::new(SystemClock);
        let sandboxes_dir = world.config.dir.join("sandboxes");
        std::fs::create_dir_all(&sandboxes_dir).unwrap();
        let installation_id = world.config.installation_id.clone();
        let config = MockConfig { sandboxes_dir, installation_id, clock: clock.clone() };
        let provider = MockProvider::start(config).await.unwrap();
        Self { world, clock, provider }
    }

    async fn start(&self) -> Arc<Worker> {
        let providers = Providers::new(vec![self.provider.clone()], "mock");
        let (control, clock): (Arc<FakeControl>, _) =
            (self.world.control.clone(), self.clock.clone());
        Worker::start(self.world.config.clone(), providers, control, clock).await.unwrap()
    }

    async fn spawn(&self, worker: &Worker, n: u16, ttl: Duration) -> SandboxId {
        let id = id(n);
        let mut order = self.world.order(&id);
        order.provider = String::new();
        order.expires_at = self.clock.wall().saturating_add(ttl);
        order.lease.expires_at = order.expires_at.saturating_add(Duration::from_secs(60));
        within("a spawn", worker.spawn(order)).await.unwrap();
        id
    }

    async fn destroy(&self, worker: &Worker, id: &SandboxId) {
        let lease = self.world.lease(id, 1);
        let done = worker.destroy(id.clone(), lease, EndedReason::Destroyed, None);
        within("a destroy", done).await.unwrap();
        assert!(!self.world.folder(id).exists());
    }

    async fn end(self, worker: Arc<Worker>) {
        worker.shutdown().await;
        within("the close", self.provider.close()).await;
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_files_through_the_real_agent() {
    let mock = Mock::new().await;
    let worker = mock.start().await;
    let id = mock.spawn(&worker, 1, LONG).await;
    let (output, end) = run(&worker, &id, &["sh", "-c", "echo out; echo err >&2; exit 5"]).await;
    assert_eq!(end.unwrap().exit_code, 5);
    assert_eq!(output.len(), "out\nerr\n".len());
    let argv = ["sh", "-c", "head -c 3000000 /dev/zero"];
    let (output, end) = run(&worker, &id, &argv).await;
    assert_eq!((output.len(), end.unwrap().exit_code), (3_000_000, 0));

    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let content = Box::pin(stream::iter([Ok(Bytes::from(sent.clone()))]));
    let op = FileOp::Write { path: "/workspace/f".to_owned(), mode: Some(0o600), content };
    assert!(matches!(worker.files(id.clone(), op).await.unwrap(), FileReply::Done));
    let op = FileOp::Read { path: "/workspace/f".to_owned() };
    let FileReply::Content { content, .. } = worker.files(id.clone(), op).await.unwrap() else {
        panic!("a read is answered with content");
    };
    let got: Vec<Bytes> = within("a read", content.map(Result::unwrap).collect::<Vec<_>>()).await;
    assert!(got.concat() == sent);
    let (_, end) =
        run(&worker, &id, &["sh", "-c", "test $(stat -c %a /proc/self/cwd/f) = 600"]).await;
    assert_eq!(end.unwrap().exit_code, 0);
    assert!(worker.stats(id.clone()).await.unwrap().disk_bytes.is_some());
    mock.destroy(&worker, &id).await;
    mock.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_reaches_the_command() {
    let mock = Mock::new().await;
    let worker = mock.start().await;
    let id = mock.spawn(&worker, 1, LONG).await;
    let piece = Bytes::from(vec![b'y'; 50_000]);
    let input = stream::repeat_with(move || Ok(piece.clone())).take(20);
    let order = command(&id, &["sh", "-c", "cat | wc -c"]);
    let stream = worker.exec(order, Stdin::Stream(Box::pin(input))).await.unwrap();
    let (output, end) = collect(stream).await;
    assert_eq!((end.unwrap().exit_code, output.trim_ascii()), (0, b"1000000".as_slice()));
    mock.destroy(&worker, &id).await;
    mock.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_outlive_the_server_and_are_taken_back() {
    let mut mock = Mock::new().await;
    let worker = mock.start().await;
    let id = mock.spawn(&worker, 1, LONG).await;
    let order = command(&id, &["sh", "-c", "sleep 0.2; echo done > /proc/self/cwd/mark"]);
    let running = worker.exec(order, Stdin::Empty).await.unwrap();
    worker.shutdown().await;
    within("the close", mock.provider.close()).await;
    drop((running, worker));

    let config = MockConfig {
        sandboxes_dir: mock.world.config.dir.join("sandboxes"),
        installation_id: mock.world.config.installation_id.clone(),
        clock: mock.clock.clone(),
    };
    mock.provider = MockProvider::start(config).await.unwrap();
    let worker = mock.start().await;
    let facts = worker.inventory().await.unwrap();
    assert_eq!((facts.len(), facts[0].state), (1, SandboxState::Running));
    // The command ran on without a server.
    crate::support::wait_for("its mark", async || {
        let op = FileOp::Stat { path: "/workspace/mark".to_owned() };
        worker.files(id.clone(), op).await.ok().map(drop)
    })
    .await;
    mock.destroy(&worker, &id).await;
    mock.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_command_is_found_again_by_another_server() {
    let mut mock = Mock::new().await;
    let worker = mock.start().await;
    let id = mock.spawn(&worker, 1, LONG).await;
    let script = "echo out; echo err >&2; read line; echo got $line; kill -TERM $$";
    let order = ExecOrder { detach: true, ..command(&id, &["sh", "-c", script]) };
    let exec_id = order.exec_id.clone();
    worker.start(order.clone(), Stdin::Open).await.unwrap();
    let again = worker.start(order, Stdin::Open).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict);
    worker.shutdown().await;
    within("the close", mock.provider.close()).await;
    drop(worker);

    let config = MockConfig {
        sandboxes_dir: mock.world.config.dir.join("sandboxes"),
        installation_id: mock.world.config.installation_id.clone(),
        clock: mock.clock.clone(),
    };
    mock.provider = MockProvider::start(config).await.unwrap();
    let worker = mock.start().await;
    let look = |offset, follow| AttachOrder {
        sandbox_id: id.clone(),
        exec_id: exec_id.clone(),
        offset,
        follow,
        hold: false,
    };
    let seen: Vec<_> = worker.attach(look(0, false)).await.unwrap().collect().await;
    assert!(matches!(seen.last(), Some(Ok(ExecEvent::Paused))), "{seen:?}");
    let waiting = worker.exec_wait(id.clone(), exec_id.clone());
    let line = Box::pin(stream::iter([Ok(Bytes::from_static(b"a line\n"))]));
    worker.exec_input(id.clone(), exec_id.clone(), line, false).await.unwrap();
    let exit = within("its end", waiting).await.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (143, 15));
    let (output, end) = collect(worker.attach(look(8, true)).await.unwrap()).await;
    assert_eq!((output.as_slice(), end.unwrap()), (b"got a line\n".as_slice(), exit));
    let none = AttachOrder { exec_id: ExecId::parse("none").unwrap(), ..look(0, true) };
    assert_eq!(worker.attach(none).await.err().unwrap().code, ErrorCode::NotFound);
    let late = worker.exec_control(id.clone(), exec_id, ExecControl::Kill).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::Conflict);
    mock.destroy(&worker, &id).await;
    mock.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_to_destruction_takes_less_than_two_seconds() {
    let mock = Mock::new().await;
    let worker = mock.start().await;
    let end = mock.clock.boot().saturating_add(Duration::from_millis(300));
    let id = mock.spawn(&worker, 1, Duration::from_millis(300)).await;
    let ended = mock.world.control.report_on(&id).await;
    let late = mock.clock.boot().since(end);
    assert!(late < Duration::from_secs(2), "{late:?}");
    assert_eq!((ended.reason, ended.removed), (EndedReason::Expired, true));
    forgotten(&worker, &id).await;
    assert!(!mock.world.folder(&id).exists());
    mock.end(worker).await;
}
