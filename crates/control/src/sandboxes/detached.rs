//! Detached commands: started, listed, looked at, fed, signalled, waited for.

use std::time::Duration;

use protocol::worker::{ByteStream, ExecControl, ExecEvent, ExecStream, Stdin, TtySize};
use store::{ExecKind, ExecPage, ExecRecord};
use types::{ErrorCode, ExecId, Fault, Sandbox};

use super::ExecInput;
use super::exec::stream_timeout;
use super::history::end_of;
use super::recorded::{self, Opened, Opening, stdin_of};
use crate::fault::{store_fault, within};
use crate::{Context, Control};

/// For what an agent answers at once.
const ASK_DEADLINE: Duration = Duration::from_secs(30);

impl Control {
    /// Starts a command that belongs to nobody. The same `exec_id` again starts nothing.
    pub async fn exec_detached(
        &self,
        ctx: &Context,
        id: &str,
        input: ExecInput,
    ) -> Result<ExecId, Fault> {
        let timeout = stream_timeout(&self.0.config.defaults, input.timeout)?;
        let stdin = stdin_of(&input, true);
        let kind = ExecKind::Detached;
        let opening = Opening { input, kind, timeout, watch: false, stdin };
        Ok(recorded::open(&self.0, ctx, id, opening).await?.exec_id)
    }

    /// Starts a command whose input and output are a conversation; the stream holds it to its own
    /// pace. It goes on when the stream is dropped: whoever does not want that kills it. `false`: it
    /// was started before, and does not read this `stdin`.
    pub async fn exec_session(
        &self,
        ctx: &Context,
        id: &str,
        input: ExecInput,
        stdin: Stdin,
    ) -> Result<(ExecId, ExecStream, bool), Fault> {
        let timeout = stream_timeout(&self.0.config.defaults, input.timeout)?;
        let kind = ExecKind::Socket;
        let opening = Opening { input, kind, timeout, watch: true, stdin };
        let Opened { exec_id, events, fresh } = recorded::open(&self.0, ctx, id, opening).await?;
        let events = events.ok_or_else(|| Fault::internal("watching the command failed"))?;
        Ok((exec_id, events, fresh))
    }

    /// The commands of a sandbox, newest first; also of one that is gone, and forgotten.
    pub async fn execs(
        &self,
        ctx: &Context,
        id: &str,
        page: ExecPage,
    ) -> Result<Vec<ExecRecord>, Fault> {
        let inner = &self.0;
        inner.told().await;
        let known = match inner.record(ctx, id).await {
            Err(fault) if fault.code != ErrorCode::NotFound => return Err(fault),
            known => known,
        };
        let of = inner.sandbox_id(id)?;
        let mut found = inner.store.execs(of, page).await.map_err(store_fault)?;
        if let Err(unknown) = known {
            // Its record went first. Each of its commands says whose it was.
            found.retain(|r| ctx.tenant.is_none() || ctx.tenant == r.tenant_id);
            if found.is_empty() {
                return Err(unknown);
            }
        }
        Ok(found)
    }

    pub async fn exec_record(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
    ) -> Result<ExecRecord, Fault> {
        Ok(self.found(ctx, id, exec).await?.1)
    }

    /// Its output from `offset` on. A gap of 0 stands for a loss whose size is not known.
    pub async fn exec_output(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        offset: u64,
        follow: bool,
    ) -> Result<ExecStream, Fault> {
        let (sandbox, record) = self.found(ctx, id, exec).await?;
        recorded::output(&self.0, &sandbox, record, offset, follow, false).await
    }

    /// Sends input, at the command's pace.
    pub async fn exec_input(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        data: ByteStream,
        close: bool,
    ) -> Result<(), Fault> {
        let (sandbox, record) = self.running(ctx, id, exec).await?;
        let link = self.0.link_of(&sandbox)?;
        link.exec_input(sandbox.id, record.exec_id, data, close).await
    }

    /// Sends a signal; KILL goes to all that descends from the command.
    pub async fn exec_signal(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        signal: i32,
    ) -> Result<(), Fault> {
        let control = if signal == types::signal::KILL {
            ExecControl::Kill
        } else {
            ExecControl::Signal(signal)
        };
        self.control_exec(ctx, id, exec, control).await
    }

    pub async fn exec_resize(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        size: TtySize,
    ) -> Result<(), Fault> {
        self.control_exec(ctx, id, exec, ExecControl::Resize(size)).await
    }

    async fn control_exec(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        control: ExecControl,
    ) -> Result<(), Fault> {
        let (sandbox, record) = self.running(ctx, id, exec).await?;
        let link = self.0.link_of(&sandbox)?;
        let work = link.exec_control(sandbox.id, record.exec_id, control);
        within(ASK_DEADLINE, "the signal", work).await
    }

    /// Waits until it has ended, at most so long; the record as it then is.
    pub async fn exec_wait(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
        timeout: Option<Duration>,
    ) -> Result<ExecRecord, Fault> {
        let (sandbox, record) = self.found(ctx, id, exec).await?;
        if record.end.is_some() {
            return Ok(record);
        }
        recorded::own(&record)?;
        let link = self.0.link_of(&sandbox)?;
        let waiting = link.exec_wait(sandbox.id, record.exec_id.clone());
        let waited = match timeout {
            None => waiting.await,
            Some(limit) => match tokio::time::timeout(limit, waiting).await {
                Ok(waited) => waited,
                Err(_) => return Ok(self.found(ctx, id, exec).await?.1),
            },
        };
        match waited {
            Ok(exit) => Ok(ExecRecord { end: Some(end_of(&self.0, &exit)), ..record }),
            Err(fault) => match self.found(ctx, id, exec).await? {
                (_, record) if record.end.is_some() => Ok(record),
                _ => Err(fault),
            },
        }
    }

    /// How a command that has ended did so.
    pub fn exec_end(record: &ExecRecord) -> Result<ExecEvent, Fault> {
        recorded::end_of(record)
    }

    async fn found(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
    ) -> Result<(Sandbox, ExecRecord), Fault> {
        let sandbox = self.0.record(ctx, id).await?;
        let none = || Fault::not_found("no such command in that sandbox");
        let exec_id = ExecId::parse(exec).map_err(|_| none())?;
        let look = || self.0.store.exec(sandbox.id.clone(), exec_id.clone());
        let mut found = look().await.map_err(store_fault)?;
        // Only of a plain one more may be known than is stored.
        if found.as_ref().is_none_or(|r| r.is_plain() && r.end.is_none()) {
            self.0.told().await;
            found = look().await.map_err(store_fault)?;
        }
        Ok((sandbox, found.ok_or_else(none)?))
    }

    async fn running(
        &self,
        ctx: &Context,
        id: &str,
        exec: &str,
    ) -> Result<(Sandbox, ExecRecord), Fault> {
        let (sandbox, record) = self.found(ctx, id, exec).await?;
        match &record.end {
            None => Ok((sandbox, record)),
            // Why it is dead is said, where it is the sandbox that ended.
            Some(_) => Err(recorded::end_of(&record)
                .err()
                .unwrap_or_else(|| Fault::new(ErrorCode::Conflict, "the command has ended"))),
        }
    }
}
