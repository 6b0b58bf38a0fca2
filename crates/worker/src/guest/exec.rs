//! Commands: started by one call, which then carries their output.

use bytes::Bytes;
use protocol::agent::{Body, Channel, Event, ExecDone, ExecInfo, ExecSpec, Request};

use super::call::{CallHandle, Input, Item};
use super::client::Guest;
use super::error::{GuestError, Lost};

/// A started command. Dropped before its end, it is cancelled, or, if it is detached, looked at no
/// more.
pub(crate) struct Output {
    call: CallHandle,
}

/// What it says.
#[derive(Debug)]
pub(crate) enum Said {
    Out(Bytes),
    Err(Bytes),
    /// So many bytes are lost.
    Gap(u64),
    /// That was all so far.
    Paused,
    Done(ExecDone),
}

/// Input on its way to a detached command.
pub(crate) struct Feeding {
    call: CallHandle,
}

impl Feeding {
    /// Sends a piece. `false`: the agent has ended the call; `finish` tells why.
    pub async fn send(&self, data: Bytes) -> Result<bool, GuestError> {
        self.call.send(data).await
    }

    /// That was all; waits until the command has taken it.
    pub async fn finish(mut self) -> Result<(), GuestError> {
        self.call.finish_input();
        loop {
            match self.call.next().await? {
                Item::End(Body::Done) => return Ok(()),
                Item::End(_) => return Err(unexpected("the end of an input")),
                Item::Data(..) | Item::Event(_) => {}
            }
        }
    }
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
                Item::Data(Channel::Gap, notes) => return Ok(Said::Gap(lost(&notes))),
                Item::End(Body::Paused) => return Ok(Said::Paused),
                Item::End(Body::Exec(done)) => return Ok(Said::Done(done)),
                Item::End(_) => return Err(unexpected("the end of an exec")),
                Item::Data(Channel::Input, _) | Item::Event(_) => {}
            }
        }
    }
}

impl Guest {
    /// Starts a command; an error means that it did not start. With `stdin` in the spec,
    /// [`Output::input`] follows, else its stdin is empty.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Output, GuestError> {
        let mut call = self.call(&Request::Exec(spec)).await?;
        loop {
            match call.next().await? {
                Item::Event(Event::Started { .. }) => return Ok(Output { call }),
                Item::Event(_) => {}
                Item::Data(..) | Item::End(_) => return Err(unexpected("the start of an exec")),
            }
        }
    }

    /// Looks at a detached command.
    pub async fn attach(&self, request: Request) -> Result<Output, GuestError> {
        let mut call = self.call(&request).await?;
        loop {
            match call.next().await? {
                Item::Event(Event::Attached { .. }) => return Ok(Output { call }),
                Item::Event(_) => {}
                Item::Data(..) | Item::End(_) => return Err(unexpected("that it attached")),
            }
        }
    }

    /// Sends input to a detached command.
    pub async fn open_input(&self, exec_id: &str, close: bool) -> Result<Feeding, GuestError> {
        let exec_id = exec_id.to_owned();
        Ok(Feeding { call: self.call(&Request::Input { exec_id, close }).await? })
    }

    /// The commands the agent knows.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>, GuestError> {
        match self.ask(&Request::Execs).await? {
            Body::Execs { execs } => Ok(execs),
            _ => Err(unexpected("a list of execs")),
        }
    }
}

/// Adds up what was lost; the notes come whole.
fn lost(notes: &[u8]) -> u64 {
    let numbers = notes.chunks_exact(8).filter_map(|n| n.try_into().ok().map(u64::from_le_bytes));
    numbers.fold(0, u64::saturating_add)
}

/// The agent answered, but not with `what`.
pub(super) fn unexpected(what: &str) -> GuestError {
    GuestError::Lost(Lost::Protocol(format!("it was to tell {what}")))
}
