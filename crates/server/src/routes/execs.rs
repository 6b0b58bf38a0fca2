//! `/sandboxes/{id}/execs`: what ran in a sandbox, and commands that outlive their requests.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use control::{CANCELLED, ExecPage, ExecRecord};
use futures_util::{StreamExt, TryStreamExt};
use types::api::{self, SignalRequest, Status};
use types::{ExecId, Fault, Timestamp, duration, signal};

use super::exec::{Encoding, signal_name};
use super::sandboxes::span;
use super::stream;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::extract::{Json, Param, Params, ok};
use crate::page::{MOST, Page, put_next};
use crate::query::Query;

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let page = Page::parse(&query)?;
    let after = page.after.as_deref().map(placed).transpose()?;
    let running = match query.get("state") {
        None | Some("") => false,
        Some("running") => true,
        Some(_) => return Err(Fault::bad_request("state is running, or absent").into()),
    };
    let most = page.limit.unwrap_or(MOST);
    // One more than is asked for, to know whether there are more.
    let wanted = ExecPage { running, after, limit: most + 1 };
    let mut records = app.control.execs(&caller.context(), &id, wanted).await?;
    let full = records.len() > most as usize;
    records.truncate(most as usize);
    let next = records.last().filter(|_| full).map(place);
    let bodies: Vec<api::Exec> = records.into_iter().map(body).collect();
    let mut response = ok(&bodies);
    put_next(&mut response, next.as_deref());
    Ok(response)
}

/// The place of a command in a list, for a cursor.
fn place(record: &ExecRecord) -> String {
    format!("{}.{}", record.created_at.unix_nanos(), record.exec_id)
}

fn placed(text: &str) -> Result<(Timestamp, ExecId), Fault> {
    let parts = text.split_once('.').and_then(|(nanos, id)| {
        Some((Timestamp::from_unix_nanos(nanos.parse().ok()?), ExecId::parse(id).ok()?))
    });
    parts.ok_or_else(|| Fault::bad_request("the cursor is of another list"))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Params(id, exec): Params,
) -> Result<Response, Error> {
    Ok(ok(&body(app.control.exec_record(&caller.context(), &id, &exec).await?)))
}

pub(crate) async fn output(
    State(app): State<App>,
    caller: Caller,
    Params(id, exec): Params,
    query: Query,
) -> Result<Response, Error> {
    let offset = match query.get("offset").filter(|t| !t.is_empty()) {
        Some(text) => {
            text.parse().map_err(|_| Fault::bad_request("offset is a number of bytes"))?
        }
        None => 0,
    };
    let (follow, encoding) = (flag(&query, "follow")?, Encoding::parse(query.get("encoding"))?);
    let events = app.control.exec_output(&caller.context(), &id, &exec, offset, follow).await?;
    Ok(stream::respond(events, app.closing.clone(), encoding, Some(offset)))
}

pub(crate) async fn stdin(
    State(app): State<App>,
    caller: Caller,
    Params(id, exec): Params,
    query: Query,
    content: Body,
) -> Result<Response, Error> {
    let close = flag(&query, "close")?;
    let broken = |e| Fault::bad_request("the body of the request broke off").caused_by(e);
    let data = content.into_data_stream().map_err(broken).boxed();
    app.control.exec_input(&caller.context(), &id, &exec, data, close).await?;
    Ok(ok(&Status { status: "written".to_owned() }))
}

pub(crate) async fn signal(
    State(app): State<App>,
    caller: Caller,
    Params(id, exec): Params,
    Json(request): Json<SignalRequest>,
) -> Result<Response, Error> {
    let name = request.signal.unwrap_or_default();
    let number = signal::parse(&name)
        .ok_or_else(|| Fault::bad_request("signal is a name like TERM, or a number"))?;
    app.control.exec_signal(&caller.context(), &id, &exec, number).await?;
    Ok(ok(&Status { status: "signalled".to_owned() }))
}

pub(crate) async fn wait(
    State(app): State<App>,
    caller: Caller,
    Params(id, exec): Params,
    query: Query,
) -> Result<Response, Error> {
    let timeout = query.get("timeout").filter(|t| !t.is_empty());
    let timeout = timeout.map(|t| span("timeout", t)).transpose()?;
    let context = caller.context();
    let waiting = app.control.exec_wait(&context, &id, &exec, timeout);
    tokio::select! {
        record = waiting => Ok(ok(&body(record?))),
        () = app.closing.cancelled() => {
            Err(Fault::unavailable("the server is stopping; the command runs on").into())
        }
    }
}

fn flag(query: &Query, name: &str) -> Result<bool, Fault> {
    match query.get(name) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(Fault::bad_request(format!("{name} is true or false"))),
    }
}

fn body(record: ExecRecord) -> api::Exec {
    let end = record.end.as_ref();
    let state = match (end, record.started_at) {
        (Some(end), _) if end.exit_code.is_some() => "exited",
        (Some(end), _) if end.lost.as_deref() == Some(CANCELLED) => "cancelled",
        (Some(_), _) => "lost",
        (None, Some(_)) => "running",
        (None, None) => "starting",
    };
    let took = record.started_at.zip(end).map(|(start, end)| end.at.since(start));
    api::Exec {
        exec_id: record.exec_id.to_string(),
        sandbox_id: record.sandbox_id.to_string(),
        command: record.command,
        kind: record.kind.as_str().to_owned(),
        state: state.to_owned(),
        tty: record.tty,
        user: record.run_as,
        workdir: record.workdir,
        owner_id: record.owner_id.map(|owner| owner.to_string()),
        created_at: record.created_at,
        started_at: record.started_at,
        ended_at: end.map(|end| end.at),
        duration: took.map(duration::format),
        exit_code: end.and_then(|end| end.exit_code),
        signal: end.and_then(|end| signal_name(end.signal)),
        timed_out: end.is_some_and(|end| end.timed_out),
        oom_killed: end.is_some_and(|end| end.oom_killed),
        error: end
            .filter(|end| end.exit_code.is_none())
            .and_then(|end| end.lost.clone())
            .filter(|why| why != CANCELLED),
    }
}
