//! Files, the console and numbers.

use bytes::Bytes;
use protocol::agent::{Body, Channel, Event, FileEntry, ReadRange, Request, Status, capability};

use super::call::{CallHandle, Item};
use super::client::Guest;
use super::error::GuestError;
use super::exec::unexpected;

/// A file that is being read.
pub(crate) struct Reading {
    pub size: u64,
    call: CallHandle,
    /// Bytes to leave out, and to let through, of what an agent sends that knows no ranges.
    cut: Option<(u64, u64)>,
}

impl Reading {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GuestError> {
        loop {
            match self.call.next().await? {
                Item::Data(Channel::Out, data) => match self.through(data) {
                    Some(data) if data.is_empty() => {}
                    passed => return Ok(passed),
                },
                Item::End(Body::Done) => return Ok(None),
                Item::End(_) => return Err(unexpected("the end of a file")),
                Item::Data(..) | Item::Event(_) => {}
            }
        }
    }

    /// What of a piece is asked for; `None` when nothing more is.
    fn through(&mut self, mut data: Bytes) -> Option<Bytes> {
        let Some((skip, left)) = &mut self.cut else { return Some(data) };
        if *left == 0 {
            return None;
        }
        let len = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(data.len());
        let skipped = data.split_to(len(*skip)).len();
        *skip -= skipped as u64;
        data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= data.len() as u64;
        Some(data)
    }
}

/// A file that is being written. Dropped before `finish`, nothing of it is seen.
pub(crate) struct Writing {
    call: CallHandle,
}

impl Writing {
    /// Sends a piece. `false`: the agent has ended the call; `finish` tells why.
    pub async fn send(&self, data: Bytes) -> Result<bool, GuestError> {
        self.call.send(data).await
    }

    /// The content is complete: puts the file in place.
    pub async fn finish(mut self) -> Result<(), GuestError> {
        self.call.finish_input();
        loop {
            match self.call.next().await? {
                Item::End(Body::Done) => return Ok(()),
                Item::End(_) => return Err(unexpected("the end of a write")),
                Item::Data(..) | Item::Event(_) => {}
            }
        }
    }
}

impl Guest {
    pub async fn read(
        &self,
        path: String,
        range: Option<ReadRange>,
    ) -> Result<Reading, GuestError> {
        let known = range.is_none() || self.can(capability::READ_RANGE).await?;
        let asked = range.filter(|_| known);
        let mut call = self.call(&Request::Read { path, range: asked }).await?;
        loop {
            match call.next().await? {
                Item::Event(Event::Size { bytes, .. }) => {
                    let part = range.filter(|_| !known).map(|r| r.of(bytes).unwrap_or(0..0));
                    let cut = part.map(|part| (part.start, part.end - part.start));
                    return Ok(Reading { size: bytes, call, cut });
                }
                Item::Event(_) => {}
                Item::Data(..) | Item::End(_) => return Err(unexpected("the size of a file")),
            }
        }
    }

    pub async fn write(&self, path: String, mode: Option<u32>) -> Result<Writing, GuestError> {
        Ok(Writing { call: self.call(&Request::Write { path, mode }).await? })
    }

    /// A directory as a tree.
    pub async fn pack(&self, path: String) -> Result<Reading, GuestError> {
        let call = self.call(&Request::Pack { path }).await?;
        Ok(Reading { size: 0, call, cut: None })
    }

    /// Begins to write a tree.
    pub async fn unpack(&self, path: String) -> Result<Writing, GuestError> {
        Ok(Writing { call: self.call(&Request::Unpack { path }).await? })
    }

    pub async fn list(&self, path: String) -> Result<Vec<FileEntry>, GuestError> {
        let mut call = self.call(&Request::List { path }).await?;
        let mut all = Vec::new();
        loop {
            match call.next().await? {
                Item::Event(Event::Entries { entries }) => all.extend(entries),
                Item::End(Body::Done) => return Ok(all),
                Item::End(_) => return Err(unexpected("the end of a list")),
                Item::Event(_) | Item::Data(..) => {}
            }
        }
    }

    pub async fn glob(&self, pattern: String) -> Result<Vec<String>, GuestError> {
        let mut call = self.call(&Request::Glob { pattern }).await?;
        let mut all = Vec::new();
        loop {
            match call.next().await? {
                Item::Event(Event::Paths { paths }) => all.extend(paths),
                Item::End(Body::Done) => return Ok(all),
                Item::End(_) => return Err(unexpected("the end of a list")),
                Item::Event(_) | Item::Data(..) => {}
            }
        }
    }

    pub async fn stat(&self, path: String) -> Result<FileEntry, GuestError> {
        match self.ask(&Request::Stat { path }).await? {
            Body::File { entry } => Ok(entry),
            _ => Err(unexpected("a file")),
        }
    }

    /// A request that is answered with `Done`.
    pub async fn tell(&self, request: Request) -> Result<(), GuestError> {
        match self.ask(&request).await? {
            Body::Done => Ok(()),
            _ => Err(unexpected("that it was done")),
        }
    }

    pub async fn logs(&self, lines: u32) -> Result<Vec<String>, GuestError> {
        match self.ask(&Request::Logs { lines }).await? {
            Body::Lines { lines } => Ok(lines),
            _ => Err(unexpected("lines of the console")),
        }
    }

    pub async fn status(&self) -> Result<Status, GuestError> {
        match self.ask(&Request::Status).await? {
            Body::Status(status) => Ok(status),
            _ => Err(unexpected("its numbers")),
        }
    }
}
