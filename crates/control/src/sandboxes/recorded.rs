//! Commands with a record: they outlive whoever started them, are found again by their id, and run
//! once however often they are asked for.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::{StreamExt, stream};
use protocol::worker::{
    AttachOrder, Bytes, ExecEvent, ExecExit, ExecOrder, ExecStream, OutputStream, Stdin, WorkerLink,
};
use sha2::{Digest, Sha256};
use store::{CANCELLED, ExecKind, ExecOutput, ExecRecord};
use types::{EndedReason, ErrorCode, ExecId, Fault, Sandbox};

use super::exec::{START_DEADLINE, input_of, new_id};
use super::watching::watch;
use super::{ExecInput, argv::argv};
use crate::Context;
use crate::control::Inner;
use crate::fault::{store_fault, within};

/// Characters of a command that its record keeps.
const SUMMARY: usize = 512;

/// What starting a command with a record is about.
pub(super) struct Opening {
    pub input: ExecInput,
    pub kind: ExecKind,
    pub timeout: Option<Duration>,
    /// Look at its output, and hold it to that pace.
    pub watch: bool,
    /// Its input comes from here, or may come later.
    pub stdin: Stdin,
}

/// A command that was started, or found.
pub(super) struct Opened {
    pub exec_id: ExecId,
    /// Its output, where it is watched.
    pub events: Option<ExecStream>,
    /// It was started now, and so reads what came with the request.
    pub fresh: bool,
}

/// Starts a command, or finds the one that its id was used for.
pub(super) async fn open(
    inner: &Arc<Inner>,
    ctx: &Context,
    id: &str,
    opening: Opening,
) -> Result<Opened, Fault> {
    let words = argv(&opening.input)?;
    let fingerprint = fingerprint(&opening.input, &words);
    if let Some(exec_id) = &opening.input.exec_id {
        // Also of a sandbox that is no more.
        let sandbox = inner.record(ctx, id).await?;
        let known = inner.store.exec(sandbox.id.clone(), exec_id.clone());
        if let Some(known) = known.await.map_err(store_fault)?
            && (known.started_at.is_some() || known.end.is_some())
        {
            return resume(inner, &sandbox, known, &fingerprint, opening.watch).await;
        }
    }
    let (sandbox, link) = inner.usable(ctx, id).await?;
    let exec_id = match &opening.input.exec_id {
        Some(chosen) => chosen.clone(),
        None => new_id()?,
    };
    let record = ExecRecord {
        fingerprint: fingerprint.clone(),
        ..record(inner, ctx, &sandbox, &exec_id, &opening.input, opening.kind)
    };
    let known = inner.store.insert_exec(record).await.map_err(store_fault)?;
    // One that is recorded and never said to run may have been started all the same: the sandbox
    // knows, and takes no id twice.
    if let Some(known) =
        known.filter(|k| k.started_at.is_some() || k.end.is_some() || k.fingerprint != fingerprint)
    {
        return resume(inner, &sandbox, known, &fingerprint, opening.watch).await;
    }
    let order = ExecOrder {
        sandbox_id: sandbox.id.clone(),
        exec_id: exec_id.clone(),
        argv: words,
        env: opening.input.env,
        workdir: opening.input.workdir.filter(|w| !w.trim().is_empty()),
        timeout: opening.timeout,
        user: opening.input.user,
        tty: opening.input.tty,
        detach: true,
    };
    // A caller that goes away does not stop a start half way.
    let work = begin(Arc::clone(inner), link, order, opening.stdin, opening.watch);
    let started = inner.tracker.spawn(work).await;
    let (events, fresh) =
        started.map_err(|e| Fault::internal("starting the command").caused_by(e))??;
    Ok(Opened { exec_id, events, fresh })
}

async fn begin(
    inner: Arc<Inner>,
    link: Arc<dyn WorkerLink>,
    order: ExecOrder,
    stdin: Stdin,
    look: bool,
) -> Result<(Option<ExecStream>, bool), Fault> {
    let (of, exec_id) = (order.sandbox_id.clone(), order.exec_id.clone());
    let what = "starting the command";
    let started = if look {
        within(START_DEADLINE, what, link.exec(order, stdin)).await.map(Some)
    } else {
        within(START_DEADLINE, what, link.start(order, stdin)).await.map(|()| None)
    };
    match started {
        Ok(events) => {
            watch(&inner, of, exec_id, true);
            Ok((events, true))
        }
        Err(fault) if fault.code == ErrorCode::Conflict => {
            // It was started before, and that answer was lost.
            watch(&inner, of.clone(), exec_id.clone(), true);
            if !look {
                return Ok((None, false));
            }
            let order =
                AttachOrder { sandbox_id: of, exec_id, offset: 0, follow: true, hold: true };
            link.attach(order).await.map(|events| (Some(events), false))
        }
        Err(fault) if is_open(fault.code) => {
            // Nobody knows whether it runs: it is looked for.
            watch(&inner, of, exec_id, false);
            Err(fault)
        }
        Err(fault) => {
            inner.store.forget_exec(of, exec_id).await.map_err(store_fault)?;
            Err(fault)
        }
    }
}

/// Whether a start that failed so may have happened all the same.
pub(super) fn is_open(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable
            | ErrorCode::InternalError
            | ErrorCode::SandboxDead
            | ErrorCode::Timeout
            | ErrorCode::NotFound
    )
}

/// The id is used: attaches, or answers from the record.
async fn resume(
    inner: &Arc<Inner>,
    sandbox: &Sandbox,
    known: ExecRecord,
    fingerprint: &str,
    look: bool,
) -> Result<Opened, Fault> {
    let exec_id = known.exec_id.clone();
    if known.fingerprint != fingerprint {
        let text = format!("exec_id {exec_id} was used for another command");
        return Err(Fault::new(ErrorCode::Conflict, text));
    }
    let events =
        if look { Some(output(inner, sandbox, known, 0, true, true).await?) } else { None };
    Ok(Opened { exec_id, events, fresh: false })
}

/// The output of a command from `offset` on: from the sandbox, or from the record.
pub(super) async fn output(
    inner: &Arc<Inner>,
    sandbox: &Sandbox,
    record: ExecRecord,
    offset: u64,
    follow: bool,
    hold: bool,
) -> Result<ExecStream, Fault> {
    let (of, exec_id) = (record.sandbox_id.clone(), record.exec_id.clone());
    if record.end.is_none() {
        own(&record)?;
        let link = inner.link_of(sandbox)?;
        let (sandbox_id, exec_id) = (of.clone(), exec_id.clone());
        let order = AttachOrder { sandbox_id, exec_id, offset, follow, hold };
        match link.attach(order).await {
            Ok(events) => return Ok(events),
            // It may have ended meanwhile, and its sandbox too.
            Err(fault) if is_open(fault.code) => {
                let now = inner.store.exec(of.clone(), record.exec_id.clone()).await;
                let ended = now.map_err(store_fault)?.filter(|r| r.end.is_some());
                let Some(ended) = ended else { return Err(fault) };
                return kept(inner, ended, offset).await;
            }
            Err(fault) => return Err(fault),
        }
    }
    kept(inner, record, offset).await
}

/// Of a plain one that runs only its caller sees more than that it does.
pub(super) fn own(record: &ExecRecord) -> Result<(), Fault> {
    if record.is_plain() {
        let text = "this command belongs to its caller: only one that was started with detach, an \
                    exec_id or over the WebSocket can be attached to";
        return Err(Fault::new(ErrorCode::Conflict, text));
    }
    Ok(())
}

/// What the record of an ended command holds, as a stream.
async fn kept(inner: &Inner, record: ExecRecord, offset: u64) -> Result<ExecStream, Fault> {
    let (of, exec_id) = (record.sandbox_id.clone(), record.exec_id.clone());
    let held = inner.store.exec_output(of, exec_id).await.map_err(store_fault)?;
    let lost_end = record.end.as_ref().is_some_and(|end| end.lost.is_some());
    let mut events: Vec<Result<ExecEvent, Fault>> = Vec::new();
    match &held {
        Some(output) => {
            // Of one whose end nobody saw, more may have come than was fetched.
            if offset > output.total() && !lost_end {
                return Err(Fault::bad_request("offset: the output did not come so far"));
            }
            pieces(output, offset, &mut events);
        }
        None => events.push(Ok(ExecEvent::Gap { lost: 0 })),
    }
    if lost_end && held.is_some() {
        events.push(Ok(ExecEvent::Gap { lost: 0 }));
    }
    events.push(end_of(&record));
    Ok(stream::iter(events).boxed())
}

fn pieces(output: &ExecOutput, offset: u64, events: &mut Vec<Result<ExecEvent, Fault>>) {
    if offset < output.first {
        events.push(Ok(ExecEvent::Gap { lost: output.first - offset }));
    }
    for (_, stderr, data) in output.pieces(offset) {
        let stream = if stderr { OutputStream::Stderr } else { OutputStream::Stdout };
        events.push(Ok(ExecEvent::Output { stream, data: Bytes::copy_from_slice(data) }));
    }
}

/// How a recorded command ended; an error if nobody knows.
pub(super) fn end_of(record: &ExecRecord) -> Result<ExecEvent, Fault> {
    let end = record.end.as_ref();
    match end.and_then(|end| end.exit_code.map(|code| (end, code))) {
        Some((end, exit_code)) => Ok(ExecEvent::Exit(ExecExit {
            exit_code,
            timed_out: end.timed_out,
            oom_killed: end.oom_killed,
            signal: end.signal,
        })),
        None => {
            let lost = end.and_then(|end| end.lost.as_deref());
            if lost == Some(CANCELLED) {
                return Err(Fault::new(ErrorCode::Conflict, "the command was cancelled"));
            }
            let how = lost.and_then(EndedReason::parse).unwrap_or(EndedReason::Lost).in_words();
            let id = &record.sandbox_id;
            Err(Fault::dead(format!("how the command ended is not known: sandbox {id} {how}")))
        }
    }
}

/// Of all that makes a command what it is: the same id has to mean the same command. How its output
/// is wanted is no part of it.
fn fingerprint(input: &ExecInput, argv: &[String]) -> String {
    let mut hash = Sha256::new();
    let mut put = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    argv.iter().for_each(|word| put(word.as_bytes()));
    put(b"env");
    for (name, value) in &input.env {
        put(name.as_bytes());
        put(value.as_bytes());
    }
    put(input.workdir.as_deref().unwrap_or_default().trim().as_bytes());
    put(input.user.as_deref().unwrap_or_default().as_bytes());
    put(format!("{:?} {}", input.timeout, input.tty.is_some()).as_bytes());
    put(input.stdin.as_deref().unwrap_or_default());
    HEXLOWER.encode(&hash.finalize())
}

/// A command as it is remembered: not its environment nor its input, which hold secrets.
pub(super) fn record(
    inner: &Inner,
    ctx: &Context,
    sandbox: &Sandbox,
    exec_id: &ExecId,
    input: &ExecInput,
    kind: ExecKind,
) -> ExecRecord {
    let words = std::iter::once(&input.command).chain(&input.args).map(String::as_str);
    let workdir = input.workdir.as_deref().map(str::trim).filter(|w| !w.is_empty());
    ExecRecord {
        sandbox_id: sandbox.id.clone(),
        exec_id: exec_id.clone(),
        tenant_id: ctx.tenant.clone().or(sandbox.tenant_id.clone()),
        owner_id: ctx.owner.clone().or(sandbox.owner_id.clone()),
        command: summary(words),
        fingerprint: String::new(),
        kind,
        run_as: input.user.as_deref().map(|user| summary([user])),
        workdir: workdir.map(|dir| summary([dir])),
        tty: input.tty.is_some(),
        created_at: inner.clock.wall(),
        started_at: None,
        end: None,
    }
}

/// The beginning of some words; no more of them is looked at.
fn summary<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut short = String::new();
    let mut room = SUMMARY;
    for word in words {
        let space = if short.is_empty() { "" } else { " " };
        for c in space.chars().chain(word.chars()) {
            if room == 0 {
                short.push('…');
                return short;
            }
            short.push(c);
            room -= 1;
        }
    }
    short
}

/// The input of a command with a record, where none of it comes from its caller directly.
pub(super) fn stdin_of(input: &ExecInput, stays_open: bool) -> Stdin {
    match input_of(input) {
        Stdin::Empty if stays_open => Stdin::Open,
        stdin => stdin,
    }
}
