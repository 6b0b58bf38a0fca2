//! The task that keeps one spawner running.

use std::sync::Arc;
use std::time::Duration;

use protocol::spawner::{HostFacts, Reply};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use types::Fault;

use super::channel::Channel;
use super::{ORDER_LIMIT, Shared, failed, process, unanswered};

/// Pauses between starts of a spawner that does not stay up.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a spawner may take to end once its socket is closed, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The task; dropping it closes the spawner's socket.
pub(super) struct Running {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        // `closed` resolves when the task has dropped its receiver, that is, when it has ended.
        self.stop.closed().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A started spawner that has answered.
struct Spawner {
    channel: Arc<Channel>,
    listener: Listener,
    child: Child,
}

/// Its reader; ends with it.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the first one and the task that looks after it.
pub(super) async fn start(shared: Arc<Shared>) -> Result<(Running, HostFacts), Fault> {
    let (spawner, facts) = launch(&shared).await?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(supervise(shared, spawner, stopped));
    Ok((Running { task, stop }, facts))
}

async fn launch(shared: &Arc<Shared>) -> Result<(Spawner, HostFacts), Fault> {
    let cannot = |e: std::io::Error| {
        Fault::unavailable("the program that makes sandboxes does not start").caused_by(e)
    };
    let for_setup = shared.clone();
    let setup = tokio::task::spawn_blocking(move || for_setup.setup())
        .await
        .map_err(|e| cannot(std::io::Error::other(e)))?;
    let (child, socket) = process::start(&shared.program).map_err(cannot)?;
    #[cfg(test)]
    shared.last_pid.store(child.id().unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
    let channel = Arc::new(Channel::new(socket).map_err(cannot)?);
    let reader = channel.clone();
    let listener = Listener(tokio::spawn(async move { reader.listen().await }));
    let answer = tokio::time::timeout(ORDER_LIMIT, channel.set_up(&setup)).await;
    let facts = match answer {
        Ok(Ok(Reply::Ready { facts })) => facts,
        Ok(Ok(other)) => return Err(failed("set up the spawner", other)),
        Ok(Err(e)) => return Err(unanswered(e)),
        Err(_) => return Err(Fault::unavailable("the spawner does not answer")),
    };
    shared.current.send_replace(Some(channel.clone()));
    Ok((Spawner { channel, listener, child }, facts))
}

async fn supervise(shared: Arc<Shared>, first: Spawner, mut stopped: watch::Receiver<bool>) {
    let mut spawner = first;
    loop {
        let asked = tokio::select! {
            _ = &mut spawner.listener.0 => false,
            _ = stopped.wait_for(|stop| *stop) => true,
        };
        shared.current.send_replace(None);
        end(spawner).await;
        if asked {
            return;
        }
        tracing::error!("the spawner ended unexpectedly; sandboxes live on, it is started again");
        let mut pause = FIRST_PAUSE;
        spawner = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match launch(&shared).await {
                Ok((spawner, _)) => break spawner,
                Err(error) => tracing::error!(%error, "the spawner does not start again"),
            }
        };
    }
}

async fn end(mut spawner: Spawner) {
    spawner.channel.close();
    if tokio::time::timeout(END_LIMIT, spawner.child.wait()).await.is_err() {
        tracing::warn!("the spawner did not end when asked; it is killed");
        let _ = spawner.child.kill().await; // it may just have ended
    }
}
