//! Health, and the collections that are still empty.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use control::Readiness;
use http::StatusCode;
use protocol::worker::WarmPoolReport;
use tokio::time::timeout;
use types::api::{Health, PoolStatus, Ready, WarmPool, WarmPools};
use types::duration;

use super::providers::health as provider;
use crate::app::App;
use crate::error::Error;
use crate::extract::{answer, ok};

/// A probe that hangs is worse than one that says no.
const READY_BUDGET: Duration = Duration::from_secs(2);

pub(crate) async fn health(State(app): State<App>) -> Response {
    alive(&app, "ok")
}

pub(crate) async fn live(State(app): State<App>) -> Response {
    alive(&app, "alive")
}

fn alive(app: &App, status: &str) -> Response {
    ok(&Health {
        status: status.to_owned(),
        version: app.config.version.clone(),
        uptime: duration::format(app.uptime()),
    })
}

/// Readiness: `ready` only when adoption is done and a provider is healthy. A server that is
/// stopping is not.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let late = Readiness { ready: false, providers: Vec::new() };
    let known = timeout(READY_BUDGET, app.control.readiness()).await.unwrap_or(late);
    let ready = known.ready && !app.closing.is_cancelled();
    let body = Ready {
        status: if ready { "ready" } else { "not_ready" }.to_owned(),
        version: app.config.version.clone(),
        uptime: duration::format(app.uptime()),
        ready_providers: known.providers.iter().filter(|p| p.healthy).count() as u64,
        total_providers: known.providers.len() as u64,
        providers: known.providers.into_iter().map(provider).collect(),
    };
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

pub(crate) async fn snapshots() -> Response {
    ok::<[(); 0]>(&[])
}

/// Nothing more than today's clients know, unless there are warm pools.
pub(crate) async fn pool(State(app): State<App>) -> Result<Response, Error> {
    let pools: Vec<_> = app.control.warm_pools().await?.into_iter().map(warm_pool).collect();
    let sum = |of: fn(&WarmPool) -> u64| pools.iter().map(of).sum();
    let warm = WarmPools {
        desired: sum(|p| p.desired),
        ready: sum(|p| p.ready),
        taken: sum(|p| p.taken),
        memory_bytes: sum(|p| p.memory_bytes),
        pools,
    };
    let warm = (!warm.pools.is_empty()).then_some(warm);
    Ok(ok(&PoolStatus { enabled: false, warm }))
}

fn warm_pool(report: WarmPoolReport) -> WarmPool {
    WarmPool {
        provider: report.provider,
        image: report.image,
        memory_mb: report.size.memory_mb,
        vcpus: report.size.vcpus,
        disk_size_mb: report.size.disk_size_mb,
        desired: report.desired,
        ready: report.ready,
        taken: report.taken,
        memory_bytes: report.memory_bytes,
        max_age: duration::format(report.max_age),
        held_up: report.held_up,
    }
}
