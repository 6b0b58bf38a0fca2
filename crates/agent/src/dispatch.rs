//! From frames to work: what each kind of frame and each request leads to.

use protocol::agent::{
    AgentErrorCode, Body, Channel, ExecInfo, Hello, Kind, PROTOCOL_VERSION, Request, Status,
};

use crate::connection::{Broken, Call, Conn, Incoming, MAX_CALLS, Work};
use crate::error::{Outcome, bad_request, fail};
use crate::files::{
    self, DeleteJob, GlobJob, Job, ListJob, Moved, PackJob, Port, ReadJob, UnpackJob, WriteJob,
};
use crate::lifecycle::How;
use crate::server::Agent;

/// The oldest version of the protocol that we speak.
const MIN_VERSION: u32 = 1;
/// A ping says at most so much.
const PING: usize = 64;
/// Execs told in one answer, which has to fit a frame.
const TOLD: usize = 190;

impl Agent {
    pub(crate) fn on_frame(&mut self, id: u32, frame: &Incoming) -> Result<(), Broken> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.greeted == (frame.kind == Kind::Hello) || frame.channel != Channel::Input {
            return Err(Broken);
        }
        match frame.kind {
            Kind::Hello => on_hello(conn, frame),
            Kind::Request => self.on_request(id, frame),
            Kind::Data => self.on_data(id, frame),
            Kind::Eof => {
                self.on_eof(id, frame.call);
                Ok(())
            }
            Kind::Credit => {
                let bytes: [u8; 4] = frame.payload[..].try_into().map_err(|_| Broken)?;
                if let Some(call) = conn.calls.get_mut(&frame.call) {
                    call.credit = call.credit.saturating_add(u64::from(u32::from_le_bytes(bytes)));
                    self.wake_call(id, frame.call);
                }
                Ok(())
            }
            Kind::Cancel => {
                self.on_cancel(id, frame.call);
                Ok(())
            }
            Kind::Ping if frame.call == 0 && frame.payload.len() <= PING => {
                conn.out.frame(Kind::Pong, Channel::Input, 0, &frame.payload);
                Ok(())
            }
            Kind::Ping | Kind::Pong | Kind::End | Kind::Event => Err(Broken),
        }
    }

    fn on_request(&mut self, id: u32, frame: &Incoming) -> Result<(), Broken> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let call = frame.call;
        if call == 0 || conn.calls.contains_key(&call) {
            return Err(Broken);
        }
        let request = match serde_json::from_slice::<Request>(&frame.payload) {
            Ok(request) => request,
            // JSON, but not of a shape that we know.
            Err(error) if error.is_data() => {
                conn.end(call, Err(bad_request("the request is not understood")));
                return Ok(());
            }
            Err(_) => return Err(Broken),
        };
        if conn.calls.len() >= MAX_CALLS {
            let text = "too many calls on one connection";
            conn.end(call, Err(fail(AgentErrorCode::NoResources, text)));
            return Ok(());
        }
        let outcome = self.begin(id, call, request);
        if let Some(outcome) = outcome.transpose()
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.end(call, outcome);
        }
        Ok(())
    }

    /// Begins a call. `Some` if that was all of it.
    fn begin(&mut self, id: u32, call: u32, request: Request) -> Outcome<Option<Body>> {
        match request {
            Request::Exec(spec) => self.start_exec(id, call, &spec).map(|()| None),
            Request::Execs => Ok(Some(self.tell_execs())),
            Request::Signal { exec_id, signal } => self.signal_exec(&exec_id, &signal).map(done),
            Request::Kill { exec_id } => self.kill_whole(&exec_id).map(done),
            Request::Attach { exec_id, offset, follow, hold, quiet } => {
                self.attach(id, call, &exec_id, offset, How { follow, hold, quiet })
            }
            Request::Input { exec_id, close } => self.open_input(id, call, &exec_id, close),
            Request::Resize { exec_id, size } => self.resize(&exec_id, size).map(done),
            Request::Write { path, mode } => {
                let work = Work::Write(Box::new(WriteJob::start(&self.tree, &path, mode)?));
                self.open_call(id, call, work);
                Ok(None)
            }
            Request::Read { path, range } => {
                let Some(conn) = self.conns.get_mut(&id) else { return Ok(None) };
                let port = &mut Port { out: &mut conn.out, call, credit: &mut 0 };
                let job = ReadJob::start(&self.tree, &path, range, port)?;
                self.open_job(id, call, Job::Read(job))
            }
            Request::Pack { path } => {
                let job = PackJob::start(&self.tree, &path)?;
                self.open_job(id, call, Job::Pack(Box::new(job)))
            }
            Request::Unpack { path } => {
                let work = Work::Unpack(Box::new(UnpackJob::start(&self.tree, &path)?));
                self.open_call(id, call, work);
                Ok(None)
            }
            Request::List { path } => {
                let job = ListJob::start(&self.tree, &path)?;
                self.open_job(id, call, Job::List(job))
            }
            Request::Glob { pattern } => {
                let job = GlobJob::start(&self.tree, &pattern)?;
                self.open_job(id, call, Job::Glob(job))
            }
            Request::Delete { path, recursive } => {
                match DeleteJob::start(&self.tree, &path, recursive)? {
                    Some(job) => self.open_job(id, call, Job::Delete(job)),
                    None => Ok(Some(Body::Done)),
                }
            }
            Request::Move { from, to } => match files::rename(&self.tree, &from, &to)? {
                Moved::Done => Ok(Some(Body::Done)),
                Moved::Copying(job) => self.open_job(id, call, *job),
            },
            Request::Stat { path } => {
                files::stat(&self.tree, &path).map(|entry| Some(Body::File { entry }))
            }
            Request::Chmod { path, mode } => files::chmod(&self.tree, &path, mode).map(done),
            Request::Logs { lines } => Ok(Some(Body::Lines { lines: self.console.last(lines) })),
            Request::Note { line } => {
                self.console.note(&line);
                Ok(Some(Body::Done))
            }
            Request::Status => self.status().map(Some),
            Request::Deadline { boot_nanos } => {
                self.deadline = boot_nanos;
                Ok(Some(Body::Done))
            }
            Request::Shutdown => {
                self.ending = Some("asked to");
                Ok(Some(Body::Done))
            }
            Request::Unknown => {
                Err(fail(AgentErrorCode::Unsupported, "this agent does not know the request"))
            }
        }
    }

    pub(crate) fn open_call(&mut self, id: u32, call: u32, work: Work) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.calls.insert(call, Call::new(work));
        }
    }

    fn open_job(&mut self, id: u32, call: u32, job: Job) -> Outcome<Option<Body>> {
        self.open_call(id, call, Work::Job(Box::new(job)));
        self.wake_call(id, call);
        Ok(None)
    }

    fn tell_execs(&self) -> Body {
        let running = self.execs.iter().map(|(key, exec)| self.told(*key, exec.info()));
        let ended = self.ended.iter().filter_map(|key| {
            let log = self.logs.get(key)?;
            let done = log.end.as_ref()?.as_ref().ok()?;
            let info = ExecInfo { exec_id: log.id.clone(), ..ExecInfo::default() };
            Some(self.told(*key, ExecInfo { done: Some(done.clone()), ..info }))
        });
        let others = self.finished.iter().cloned();
        Body::Execs { execs: running.chain(ended).chain(others).take(TOLD).collect() }
    }

    fn told(&self, key: u64, info: ExecInfo) -> ExecInfo {
        match self.logs.get(&key) {
            Some(log) => ExecInfo { detached: true, total: log.ring.total(), ..info },
            None => info,
        }
    }

    fn status(&self) -> Outcome<Body> {
        let fs = rustix::fs::fstatvfs(self.tree.root())
            .map_err(|e| fail(AgentErrorCode::Internal, format!("disk numbers: {e}")))?;
        Ok(Body::Status(Status {
            disk_bytes: fs.f_blocks.saturating_sub(fs.f_bfree).saturating_mul(fs.f_frsize),
            disk_limit_bytes: fs.f_blocks.saturating_mul(fs.f_frsize),
            running_execs: u32::try_from(self.execs.len()).unwrap_or(u32::MAX),
            deadline_boot_nanos: self.deadline,
        }))
    }

    fn on_data(&mut self, id: u32, frame: &Incoming) -> Result<(), Broken> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        // Data may have been under way when its call ended.
        let Some(call) = conn.calls.get_mut(&frame.call) else { return Ok(()) };
        if !call.take(frame.payload.len()) {
            return Err(Broken);
        }
        match &mut call.work {
            Work::Exec(key) | Work::Feed(key, _) => {
                let key = *key;
                self.take_input(key, (id, frame.call), &frame.payload);
            }
            Work::View(key) => {
                let (key, from) = (*key, (id, frame.call));
                if self.logs.get(&key).is_some_and(|log| log.writer == Some(from)) {
                    self.take_input(key, from, &frame.payload);
                } else {
                    conn.consumed(frame.call, frame.payload.len());
                }
            }
            Work::Write(job) => match job.push(&frame.payload) {
                Ok(()) => conn.consumed(frame.call, frame.payload.len()),
                Err(error) => conn.end(frame.call, Err(error)),
            },
            Work::Unpack(job) => match job.push(&frame.payload) {
                Ok(()) => conn.consumed(frame.call, frame.payload.len()),
                Err(error) => conn.end(frame.call, Err(error)),
            },
            Work::Job(_) => conn.consumed(frame.call, frame.payload.len()),
        }
        Ok(())
    }

    fn on_eof(&mut self, id: u32, call: u32) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.calls.get(&call).map(|c| &c.work) {
            Some(Work::Exec(key)) => {
                let key = *key;
                self.end_input(key);
            }
            Some(Work::View(key)) => {
                let key = *key;
                if self.logs.get(&key).is_some_and(|log| log.writer == Some((id, call))) {
                    self.end_input(key);
                }
            }
            Some(Work::Feed(key, close)) => {
                let (key, close) = (*key, *close);
                self.end_feed(key, (id, call), close);
            }
            Some(Work::Write(_)) => {
                if let Some(Call { work: Work::Write(job), .. }) = conn.calls.remove(&call) {
                    conn.end(call, job.finish().map(|()| Body::Done));
                }
            }
            Some(Work::Unpack(_)) => {
                if let Some(Call { work: Work::Unpack(job), .. }) = conn.calls.remove(&call) {
                    conn.end(call, job.finish().map(|()| Body::Done));
                }
            }
            Some(Work::Job(_)) | None => {}
        }
    }

    fn on_cancel(&mut self, id: u32, call: u32) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.calls.get(&call).map(|c| &c.work) {
            Some(Work::Exec(key)) => {
                let key = *key;
                self.cancel_exec(key);
            }
            Some(
                Work::View(_) | Work::Feed(..) | Work::Write(_) | Work::Unpack(_) | Work::Job(_),
            ) => {
                let work = conn.calls.remove(&call).map(|c| c.work);
                let error = fail(AgentErrorCode::Cancelled, "the call was cancelled");
                conn.end(call, Err(error));
                if let Some(work) = work {
                    self.leave(id, call, &work);
                }
            }
            None => {}
        }
    }
}

fn done((): ()) -> Option<Body> {
    Some(Body::Done)
}

fn on_hello(conn: &mut Conn, frame: &Incoming) -> Result<(), Broken> {
    let hello: Hello = serde_json::from_slice(&frame.payload).map_err(|_| Broken)?;
    if frame.call != 0 {
        return Err(Broken);
    }
    conn.greeted = true;
    // Our own Hello has told the other end which versions would do.
    conn.closing = hello.version < MIN_VERSION || hello.min_version > PROTOCOL_VERSION;
    Ok(())
}
