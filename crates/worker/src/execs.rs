//! Commands: from the words of control to the agent's and back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::unfold;
use protocol::agent::{ExecDone, ExecSpec, Request};
use protocol::worker::{
    AttachOrder, ByteStream, ExecControl, ExecEvent, ExecExit, ExecOrder, ExecStream, OutputStream,
    Stdin,
};
use tokio_util::task::AbortOnDropHandle;
use types::failpoint::hit;
use types::{ErrorCode, ExecId, Fault, SandboxId};

use crate::core::Core;
use crate::guest::{Feeding, GuestError, Input, Output, Said};
use crate::supervisor::Sandbox;

impl Core {
    /// Starts a command; its output is the stream.
    pub(crate) async fn exec(&self, order: ExecOrder, stdin: Stdin) -> Result<ExecStream, Fault> {
        let sandbox = self.found(&order.sandbox_id).await?;
        hit("exec.ordered");
        let spec = ExecSpec { watch: order.detach, ..spec(order, &stdin) };
        let started = sandbox.guest()?.exec(spec).await;
        let output = match started {
            Ok(output) => output,
            Err(error) => return Err(sandbox.explain(error).await),
        };
        hit("exec.started");
        let pump = match stdin {
            Stdin::Empty | Stdin::Open => None,
            Stdin::Stream(stdin) => {
                Some(AbortOnDropHandle::new(tokio::spawn(feed(output.input(), stdin))))
            }
        };
        let events = unfold(Some((output, sandbox)), next_event);
        // The pump lives as long as the stream.
        Ok(Box::pin(events.inspect(move |_| {
            let _held = &pump;
        })))
    }

    /// Starts a detached command that nobody looks at.
    pub(crate) async fn start(&self, order: ExecOrder, stdin: Stdin) -> Result<(), Fault> {
        let sandbox = self.found(&order.sandbox_id).await?;
        let exec_id = order.exec_id.clone();
        hit("exec.ordered");
        let spec = ExecSpec { detach: true, watch: false, ..spec(order, &stdin) };
        // The call ends by itself once the command runs: dropping it cancels nothing.
        match sandbox.guest()?.exec(spec).await {
            Ok(_started) => hit("exec.started"),
            Err(error) => return Err(sandbox.explain(error).await),
        }
        match stdin {
            Stdin::Empty | Stdin::Open => Ok(()),
            // It may be taken slowly; whoever started it does not wait for that.
            Stdin::Stream(data) => {
                self.tasks.spawn(async move {
                    if let Err(error) = send(&sandbox, &exec_id, data, true).await {
                        tracing::debug!(error = %error, "a command did not take all its input");
                    }
                });
                Ok(())
            }
        }
    }

    pub(crate) async fn attach(&self, order: AttachOrder) -> Result<ExecStream, Fault> {
        let sandbox = self.found(&order.sandbox_id).await?;
        let request = Request::Attach {
            exec_id: order.exec_id.as_str().to_owned(),
            offset: order.offset,
            follow: order.follow,
            hold: order.hold,
            quiet: false,
        };
        let output = match sandbox.guest()?.attach(request).await {
            Ok(output) => output,
            Err(error) => return Err(sandbox.explain(error).await),
        };
        Ok(Box::pin(unfold(Some((output, sandbox)), next_event)))
    }

    pub(crate) async fn exec_input(
        &self,
        id: &SandboxId,
        exec_id: &ExecId,
        data: ByteStream,
        close: bool,
    ) -> Result<(), Fault> {
        let sandbox = self.found(id).await?;
        send(&sandbox, exec_id, data, close).await
    }

    pub(crate) async fn exec_control(
        &self,
        id: &SandboxId,
        exec_id: &ExecId,
        control: ExecControl,
    ) -> Result<(), Fault> {
        let sandbox = self.found(id).await?;
        let exec_id = exec_id.as_str().to_owned();
        let request = match control {
            ExecControl::Signal(n) => Request::Signal { exec_id, signal: n.to_string() },
            ExecControl::Kill => Request::Kill { exec_id },
            ExecControl::Resize(size) => Request::Resize { exec_id, size },
        };
        match sandbox.guest()?.tell(request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(sandbox.explain(error).await),
        }
    }

    pub(crate) async fn exec_wait(
        &self,
        id: &SandboxId,
        exec_id: &ExecId,
    ) -> Result<ExecExit, Fault> {
        let sandbox = self.found(id).await?;
        let exec_id = exec_id.as_str().to_owned();
        let (offset, follow, hold, quiet) = (0, true, false, true);
        let request = Request::Attach { exec_id, offset, follow, hold, quiet };
        let waited = async {
            let mut output = sandbox.guest()?.attach(request).await?;
            loop {
                if let Said::Done(done) = output.next().await? {
                    return Ok(exit(&done));
                }
            }
        };
        match waited.await {
            Ok(exit) => Ok(exit),
            Err(error) => Err(sandbox.explain(error).await),
        }
    }

    async fn found(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Fault> {
        self.adopted().await?;
        self.pool.serving(self.clock.boot());
        self.sandbox(id)
    }
}

fn spec(order: ExecOrder, stdin: &Stdin) -> ExecSpec {
    let millis = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX);
    ExecSpec {
        exec_id: order.exec_id.as_str().to_owned(),
        argv: order.argv,
        env: order.env.into_iter().collect(),
        cwd: order.workdir,
        // A deadline below a millisecond is still one.
        timeout_ms: order.timeout.map(|t| millis(t).max(1)),
        stdin: !matches!(stdin, Stdin::Empty),
        detach: order.detach,
        watch: false,
        tty: order.tty,
        user: order.user,
        quiet: false,
    }
}

async fn send(
    sandbox: &Sandbox,
    exec_id: &ExecId,
    mut data: ByteStream,
    close: bool,
) -> Result<(), Fault> {
    let sent = async {
        let feeding: Feeding = sandbox.guest()?.open_input(exec_id.as_str(), close).await?;
        while let Some(piece) = data.next().await {
            if !feeding.send(piece?).await? {
                break;
            }
        }
        feeding.finish().await
    };
    match sent.await {
        Ok(()) => Ok(()),
        Err(GuestError::Fault(fault)) if fault.code == ErrorCode::BadRequest => Err(fault),
        Err(error) => Err(sandbox.explain(error).await),
    }
}

/// Hands stdin on as the command takes it; its end, and a break of it, are the command's EOF.
async fn feed(input: Input, mut stdin: ByteStream) {
    while let Some(Ok(data)) = stdin.next().await {
        match input.send(data).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
    input.finish();
}

type Running = Option<(Output, Arc<Sandbox>)>;

/// The next event of a command; none after its exit or an error.
async fn next_event(running: Running) -> Option<(Result<ExecEvent, Fault>, Running)> {
    let (mut output, sandbox) = running?;
    let said = match output.next().await {
        Ok(said) => said,
        Err(error) => return Some((Err(sandbox.explain(error).await), None)),
    };
    match said {
        Said::Done(_) => hit("exec.ended"),
        Said::Out(_) | Said::Err(_) | Said::Gap(_) | Said::Paused => hit("exec.output"),
    }
    let last = matches!(said, Said::Done(_) | Said::Paused);
    Some((Ok(event(said)), (!last).then_some((output, sandbox))))
}

fn event(said: Said) -> ExecEvent {
    match said {
        Said::Out(data) => ExecEvent::Output { stream: OutputStream::Stdout, data },
        Said::Err(data) => ExecEvent::Output { stream: OutputStream::Stderr, data },
        Said::Gap(lost) => ExecEvent::Gap { lost },
        Said::Paused => ExecEvent::Paused,
        Said::Done(done) => ExecEvent::Exit(exit(&done)),
    }
}

/// Its numbers come from inside: a signal that is none is not passed on.
fn exit(done: &ExecDone) -> ExecExit {
    ExecExit {
        exit_code: done.exit_code,
        timed_out: done.timed_out,
        oom_killed: done.oom_killed,
        signal: if (1..=64).contains(&done.signal) { done.signal } else { 0 },
    }
}
