//! Exec: running a command, captured or streamed. What is wrong with the request is said before the
//! sandbox is looked up. A command whose id the caller chose is recorded first, and runs once; any
//! other is recorded behind its caller's back.

use std::time::Duration;

use futures_util::stream;
use protocol::worker::{ExecExit, ExecOrder, ExecStream, Stdin};
use store::ExecKind;
use types::{ErrorCode, ExecId, Fault};

use super::ExecInput;
use super::argv::argv;
use super::capture::collect;
use super::history::Note;
use super::recorded::{self, Opening};
use crate::fault::{limit, within};
use crate::{Context, Control, Defaults};

/// Starting a command takes milliseconds; this is for a worker that has gone deaf.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);
/// The agent keeps the deadline; this long after it we no longer count on that.
const OVERDUE: Duration = Duration::from_secs(15);

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub exit: ExecExit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    pub duration: Duration,
    /// What it was given; past it, `exit.timed_out`.
    pub timeout: Option<Duration>,
}

impl Control {
    /// Runs a command and keeps its output. Dropping the future cancels the command, unless its
    /// caller chose its id. One that ran into its timeout says so, beside its output so far.
    pub async fn exec(&self, ctx: &Context, id: &str, input: ExecInput) -> Result<Captured, Fault> {
        let inner = &self.0;
        let timeout = captured_timeout(&inner.config.defaults, input.timeout)?;
        let (events, began) = self.start_exec(ctx, id, input, timeout, ExecKind::Captured).await?;
        let max = inner.config.max_output_bytes;
        let collecting = collect(id, events, max);
        let collected = match timeout {
            None => collecting.await?,
            Some(limit) => tokio::time::timeout(limit.saturating_add(OVERDUE), collecting)
                .await
                .map_err(|_| timed_out(limit))??,
        };
        Ok(Captured {
            exit: collected.exit,
            stdout: collected.stdout.bytes,
            stderr: collected.stderr.bytes,
            stdout_truncated: collected.stdout.truncated,
            stderr_truncated: collected.stderr.truncated,
            duration: inner.clock.boot().since(began),
            timeout,
        })
    }

    /// Runs a command and passes its output on as it comes. Dropping the stream cancels it.
    pub async fn exec_stream(
        &self,
        ctx: &Context,
        id: &str,
        input: ExecInput,
        kind: ExecKind,
    ) -> Result<ExecStream, Fault> {
        let timeout = stream_timeout(&self.0.config.defaults, input.timeout)?;
        Ok(self.start_exec(ctx, id, input, timeout, kind).await?.0)
    }

    async fn start_exec(
        &self,
        ctx: &Context,
        id: &str,
        input: ExecInput,
        timeout: Option<Duration>,
        kind: ExecKind,
    ) -> Result<(ExecStream, types::clock::BootTime), Fault> {
        if input.exec_id.is_some() {
            let began = self.0.clock.boot();
            let stdin = input_of(&input);
            let opening = Opening { input, kind, timeout, watch: true, stdin };
            let opened = recorded::open(&self.0, ctx, id, opening).await?;
            let events = opened.events.ok_or_else(|| Fault::internal("watching the command"))?;
            return Ok((events, began));
        }
        let argv = argv(&input)?;
        let stdin = input_of(&input);
        let (sandbox, link) = self.0.usable(ctx, id).await?;
        let exec_id = new_id()?;
        let record = recorded::record(&self.0, ctx, &sandbox, &exec_id, &input, kind);
        let mut note = Note::new(&self.0, record);
        let order = ExecOrder {
            sandbox_id: sandbox.id,
            exec_id,
            argv,
            env: input.env,
            workdir: input.workdir.filter(|w| !w.trim().is_empty()),
            timeout,
            user: input.user,
            tty: input.tty,
            detach: false,
        };
        let began = self.0.clock.boot();
        match within(START_DEADLINE, "starting the command", link.exec(order, stdin)).await {
            Ok(events) => {
                note.started();
                Ok((note.follow(events), began))
            }
            Err(fault) => {
                if recorded::is_open(fault.code) {
                    note.lost();
                } else {
                    note.refused();
                }
                Err(fault)
            }
        }
    }
}

/// Without a word, the default; without that, the maximum.
fn captured_timeout(
    defaults: &Defaults,
    asked: Option<Duration>,
) -> Result<Option<Duration>, Fault> {
    let found = stream_timeout(defaults, asked)?;
    Ok(found.or(set(defaults.max_exec_timeout)))
}

/// Without a word, the default; without that, it ends with its sandbox.
pub(super) fn stream_timeout(
    defaults: &Defaults,
    asked: Option<Duration>,
) -> Result<Option<Duration>, Fault> {
    let asked = asked.filter(|t| !t.is_zero());
    if let (Some(asked), Some(max)) = (asked, set(defaults.max_exec_timeout))
        && asked > max
    {
        return Err(limit(format!(
            "timeout {} is above max_exec_timeout ({})",
            types::duration::format(asked),
            types::duration::format(max)
        )));
    }
    Ok(asked.or(set(defaults.default_exec_timeout)))
}

fn set(bound: Duration) -> Option<Duration> {
    (!bound.is_zero()).then_some(bound)
}

fn timed_out(after: Duration) -> Fault {
    let after = types::duration::format(after);
    Fault::new(ErrorCode::Timeout, format!("the command did not end within {after}"))
}

/// The input that a request brings along.
pub(super) fn input_of(input: &ExecInput) -> Stdin {
    match &input.stdin {
        None => Stdin::Empty,
        Some(bytes) => {
            let bytes = Ok(bytes.clone());
            Stdin::Stream(Box::pin(stream::once(async move { bytes })))
        }
    }
}

pub(super) fn new_id() -> Result<ExecId, Fault> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes)
        .map_err(|e| Fault::internal("making an exec id failed").caused_by(e))?;
    let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
    Ok(ExecId::parse(format!("ex-{text}")).expect("base32 and a dash make a valid exec id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_timeout_is_the_default_then_the_maximum() {
        let secs = Duration::from_secs;
        let with = |default, max| Defaults {
            provider: "mock".into(),
            image: "host".into(),
            ttl: secs(60),
            max_ttl: secs(0),
            memory_mb: 1,
            vcpus: 1,
            disk_size_mb: 1,
            default_exec_timeout: secs(default),
            max_exec_timeout: secs(max),
            max_sandboxes: 0,
            max_sandboxes_per_owner: 0,
        };
        // (default, max, asked) -> (captured, streamed)
        let cases = [
            ((0, 0, None), (None, None)),
            ((0, 600, None), (Some(600), None)),
            ((30, 600, None), (Some(30), Some(30))),
            ((30, 600, Some(0)), (Some(30), Some(30))),
            ((30, 600, Some(600)), (Some(600), Some(600))),
            ((30, 0, Some(9000)), (Some(9000), Some(9000))),
        ];
        for ((default, max, asked), (captured, streamed)) in cases {
            let d = with(default, max);
            let asked = asked.map(secs);
            assert_eq!(captured_timeout(&d, asked).unwrap(), captured.map(secs));
            assert_eq!(stream_timeout(&d, asked).unwrap(), streamed.map(secs));
        }
        let fault = stream_timeout(&with(0, 600), Some(secs(601))).unwrap_err();
        assert_eq!(fault.code, ErrorCode::ResourceLimit);
    }
}
