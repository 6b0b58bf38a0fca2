//! `/sandboxes`: spawn, look up, extend, destroy, and what a sandbox says of itself.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use control::{Destroyed, SpawnInput};
use http::{HeaderMap, StatusCode};
use protocol::worker::StatsReport;
use types::api::{self, ExtendRequest, Pruned, SpawnRequest, Status};
use types::{Fault, Sandbox, SandboxName, duration};

use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::extract::{Json, Param, Whole, answer, ok, owner_id};
use crate::page::{Page, put_next};
use crate::query::Query;
use crate::{finding, idempotency, json};

const DEFAULT_LINES: u32 = 100;

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Query,
) -> Result<Response, Error> {
    let (page, finding) = (Page::parse(&query)?, finding::parse(&query)?);
    let after = page.after.as_deref().map(finding::placed).transpose()?;
    // One more than is asked for, to know whether there are more.
    let limit = page.limit.map(|limit| limit + 1);
    let mut records = app.control.find(&caller.context(), &finding, after, limit).await?;
    let full = page.limit.is_some_and(|limit| records.len() > limit as usize);
    if full {
        records.pop();
    }
    let next = records.last().filter(|_| full).map(finding::place);
    let bodies: Vec<api::Sandbox> = records.into_iter().map(body).collect();
    let mut response = ok(&bodies);
    put_next(&mut response, next.as_deref());
    Ok(response)
}

pub(crate) async fn spawn(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Whole(bytes): Whole,
) -> Result<Response, Error> {
    let context = caller.context_with_owner(&headers)?;
    let wanted = SpawnInput {
        key: idempotency::key(&headers, &caller, &context, &bytes)?,
        ..input(json::read(&bytes)?)?
    };
    let obtained = app.control.obtain(&context, wanted).await?;
    let status = if obtained.found { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer(status, &body(obtained.sandbox)))
}

pub(crate) async fn admission(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<SpawnRequest>,
) -> Result<Response, Error> {
    let context = caller.context_with_owner(&headers)?;
    Ok(ok(&app.control.admission(&context, input(request)?).await?))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
) -> Result<Response, Error> {
    Ok(ok(&body(app.control.sandbox(&caller.context(), &id).await?)))
}

pub(crate) async fn destroy(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let grace =
        query.get("grace").filter(|g| !g.is_empty()).map(|g| span("grace", g)).transpose()?;
    let grace = grace.filter(|g| !g.is_zero());
    let (status, word) = match app.control.destroy(&caller.context(), &id, grace).await? {
        Destroyed::Done => (StatusCode::OK, "destroyed"),
        Destroyed::Underway => (StatusCode::ACCEPTED, "destroying"),
    };
    Ok(answer(status, &Status { status: word.to_owned() }))
}

pub(crate) async fn prune(
    State(app): State<App>,
    caller: Caller,
    query: Query,
) -> Result<Response, Error> {
    let finding = finding::parse(&query)?;
    Ok(ok(&Pruned { pruned: app.control.prune(&caller.context(), finding).await? }))
}

pub(crate) async fn extend(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    Json(request): Json<ExtendRequest>,
) -> Result<Response, Error> {
    let ttl = lifetime(request.ttl.as_deref())?
        .ok_or_else(|| Fault::bad_request("ttl is required, like 30m"))?;
    Ok(ok(&body(app.control.extend(&caller.context(), &id, ttl).await?)))
}

pub(crate) async fn logs(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let asked = query.get("lines").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let lines = asked.unwrap_or(DEFAULT_LINES);
    Ok(ok(&app.control.logs(&caller.context(), &id, lines).await?))
}

pub(crate) async fn stats(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
) -> Result<Response, Error> {
    Ok(ok(&usage(app.control.stats(&caller.context(), &id).await?)))
}

/// Clients rely on three numbers being there when `supported` is true.
fn usage(report: StatsReport) -> api::Stats {
    let Some(memory) = report.memory_bytes else { return api::Stats::default() };
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    api::Stats {
        supported: true,
        cpu_pct: Some(report.cpu_pct.unwrap_or(0.0)),
        mem_bytes: Some(memory),
        mem_limit_bytes: Some(report.memory_limit_bytes.unwrap_or(0)),
        pids: report.pids,
        cpu_usage_us: report.cpu_usage.map(micros),
        disk_bytes: report.disk_bytes,
        disk_limit_bytes: report.disk_limit_bytes,
    }
}

/// A record as clients see it.
fn body(record: Sandbox) -> api::Sandbox {
    api::Sandbox {
        id: record.id.to_string(),
        state: record.state.as_str().to_owned(),
        provider: record.provider,
        image: record.image,
        memory_mb: record.size.memory_mb,
        vcpus: record.size.vcpus,
        disk_size_mb: (record.size.disk_size_mb > 0).then_some(record.size.disk_size_mb),
        owner_id: record.owner_id.map(|o| o.to_string()),
        tenant_id: record.tenant_id.map(|t| t.to_string()),
        name: record.name.map(|n| n.to_string()),
        vm_id: record.vm_id,
        worker_id: Some(record.worker_id.to_string()),
        created_at: record.created_at,
        expires_at: record.expires_at,
        metadata: record.metadata,
        preview_domain: record.preview_domain,
        ended_reason: record.ended_reason.map(|r| r.as_str().to_owned()),
    }
}

fn input(request: SpawnRequest) -> Result<SpawnInput, Fault> {
    for (name, value) in [("template", &request.template), ("network_mode", &request.network_mode)]
    {
        if value.as_deref().is_some_and(|v| !v.trim().is_empty()) {
            return Err(Fault::bad_request(format!("{name} is not served yet")));
        }
    }
    let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
    let owner = request.owner_id.as_deref().filter(|o| !o.trim().is_empty());
    Ok(SpawnInput {
        image: filled(request.image),
        provider: filled(request.provider),
        memory_mb: amount("memory_mb", request.memory_mb)?,
        vcpus: amount("vcpus", request.vcpus)?,
        disk_size_mb: amount("disk_size_mb", request.disk_size_mb)?,
        ttl: lifetime(request.ttl.as_deref())?,
        owner: owner.map(owner_id).transpose()?,
        metadata: request.metadata.unwrap_or_default(),
        name: filled(request.name).map(sandbox_name).transpose()?,
        key: None,
    })
}

fn sandbox_name(text: String) -> Result<SandboxName, Fault> {
    SandboxName::parse(text).map_err(|e| Fault::bad_request(e.to_string()))
}

/// A number of something; zero means the default.
fn amount(name: &str, number: Option<i64>) -> Result<Option<u32>, Fault> {
    let number = u32::try_from(number.unwrap_or(0))
        .map_err(|_| Fault::bad_request(format!("{name} is out of range")))?;
    Ok((number > 0).then_some(number))
}

/// A ttl; empty means the default, a sandbox without life is a mistake.
fn lifetime(text: Option<&str>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    match span("ttl", text)? {
        Duration::ZERO => Err(Fault::bad_request("ttl has to be more than zero")),
        ttl => Ok(Some(ttl)),
    }
}

/// A duration that is not negative.
pub(super) fn span(name: &str, text: &str) -> Result<Duration, Fault> {
    let signed = duration::parse(text).map_err(|e| Fault::bad_request(format!("{name} is {e}")))?;
    if signed.negative {
        return Err(Fault::bad_request(format!("{name} is negative")));
    }
    Ok(signed.magnitude)
}

#[cfg(test)]
mod tests {
    use types::ErrorCode;

    use super::*;

    fn refused(request: SpawnRequest) -> bool {
        input(request).is_err_and(|f| f.code == ErrorCode::BadRequest)
    }

    #[test]
    fn bug_55_and_47_nonsense_is_a_bad_request() {
        for ttl in ["soon", "30", "1d", "-5m", "0s", "0"] {
            assert!(refused(SpawnRequest { ttl: Some(ttl.into()), ..Default::default() }), "{ttl}");
        }
        for n in [-1, i64::MIN, i64::from(u32::MAX) + 1] {
            assert!(refused(SpawnRequest { memory_mb: Some(n), ..Default::default() }));
            assert!(refused(SpawnRequest { vcpus: Some(n), ..Default::default() }));
            assert!(refused(SpawnRequest { disk_size_mb: Some(n), ..Default::default() }));
        }
        for owner in ["a/b", "a\\b", "a b", "a\u{7}b", &"x".repeat(129)] {
            let request = SpawnRequest { owner_id: Some(owner.into()), ..Default::default() };
            assert!(refused(request), "{owner}");
        }
        assert!(refused(SpawnRequest { template: Some("t".into()), ..Default::default() }));
        assert!(refused(SpawnRequest { network_mode: Some("nat".into()), ..Default::default() }));
    }

    #[test]
    fn what_is_empty_or_zero_is_the_default() {
        let request = SpawnRequest {
            image: Some(String::new()),
            ttl: Some(String::new()),
            memory_mb: Some(0),
            template: Some(" ".into()),
            owner_id: Some(" me ".into()),
            ..Default::default()
        };
        let read = input(request).unwrap();
        assert!(read.image.is_none() && read.ttl.is_none() && read.memory_mb.is_none());
        assert_eq!(read.owner.unwrap().as_str(), "me");
    }
}
