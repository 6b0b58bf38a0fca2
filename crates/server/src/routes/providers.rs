//! `/providers`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use protocol::worker::ProviderReport;
use types::api::{ProviderDetail, ProviderHealth};

use crate::app::App;
use crate::error::Error;
use crate::extract::{Param, ok};

pub(crate) async fn list(State(app): State<App>) -> Result<Response, Error> {
    let reports = app.control.providers(false).await?;
    Ok(ok(&reports.into_iter().map(health).collect::<Vec<_>>()))
}

pub(crate) async fn test(State(app): State<App>) -> Result<Response, Error> {
    let reports = app.control.providers(true).await?;
    let healthy: BTreeMap<_, _> = reports.into_iter().map(|r| (r.name, r.healthy)).collect();
    Ok(ok(&healthy))
}

pub(crate) async fn one(State(app): State<App>, Param(name): Param) -> Result<Response, Error> {
    let (mut report, sandbox_count) = app.control.provider(&name).await?;
    Ok(ok(&ProviderDetail {
        name: report.name.clone(),
        healthy: report.healthy,
        default: report.default,
        sandbox_count,
        config: std::mem::take(&mut report.config),
        health: health(report),
    }))
}

/// A provider as lists show it.
pub(super) fn health(report: ProviderReport) -> ProviderHealth {
    ProviderHealth {
        name: report.name,
        healthy: report.healthy,
        default: report.default,
        latency_ms: u64::try_from(report.latency.as_millis()).unwrap_or(u64::MAX),
        last_checked: report.checked_at.whole_seconds(),
        error: report.error,
        capabilities: report.capabilities,
    }
}
