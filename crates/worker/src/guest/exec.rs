//! Commands: started by one call, which then carries their output.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::agent::{Body, Channel, Event, ExecDone, ExecInfo, ExecSpec, Request};

use super::call::{CallHandle, Input, Item};
use super::client::Guest;
use super::error::{GuestError, Lost};

/// A started command. Dropped before its end, it is cancelled.
pub(crate) struct Output {
    call: CallHandle,
}

/// What it says.
#[derive(Debug)]
pub(crate) enum Said {
    Out(Bytes),
    Err(Bytes),
    Done(ExecDone),
}

impl Output {
    /// What sends the command's stdin, if it was started with one.
    pub fn input(&self) -> Input {
        self.call.input()
    }

    /// What comes next; nothing does after `Done` or an error.
    pub async fn next(&mut self) -> Result<Said, GuestError> {
        loop {
            match self.call.next().await? {
                Item::Data(Channel::Out, data) => return Ok(Said::Out(data)),
                Item::Data(Channel::Err, data) => return Ok(Said::Err(data)),
                Item::End(Body::Exec(done)) => return Ok(Said::Done(done)),
                Item::End(_) => return Err(unexpected("the end of an exec")),
                Item::Data(Channel::Input, _) | Item::Event(_) => {}
            }
        }
    }
}

impl Guest {
    /// Starts a command; an error means that it did not start. `input`: [`Output::input`] follows,
    /// else its stdin is empty.
    pub async fn exec(
        &self,
        exec_id: &str,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: Option<String>,
        timeout: Option<Duration>,
        input: bool,
    ) -> Result<Output, GuestError> {
        let spec = ExecSpec {
            exec_id: exec_id.to_owned(),
            argv,
            env: env.into_iter().collect(),
            cwd,
            // A deadline below a millisecond is still one.
            timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
            stdin: input,
            ..ExecSpec::default()
        };
        let mut call = self.call(&Request::Exec(spec)).await?;
        loop {
            match call.next().await? {
                Item::Event(Event::Started { .. }) => return Ok(Output { call }),
                Item::Event(_) => {}
                Item::Data(..) | Item::End(_) => return Err(unexpected("the start of an exec")),
            }
        }
    }

    /// The commands the agent knows.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>, GuestError> {
        match self.ask(&Request::Execs).await? {
            Body::Execs { execs } => Ok(execs),
            _ => Err(unexpected("a list of execs")),
        }
    }
}

/// The agent answered, but not with `what`.
pub(super) fn unexpected(what: &str) -> GuestError {
    GuestError::Lost(Lost::Protocol(format!("it was to tell {what}")))
}
