//! `/workers`.

use axum::extract::State;
use axum::response::Response;
use control::WorkerView;
use types::api::{Status, Worker};

use crate::app::App;
use crate::error::Error;
use crate::extract::{Param, ok};
use crate::page::{Page, put_next};
use crate::query::Query;

pub(crate) async fn list(State(app): State<App>, query: Query) -> Result<Response, Error> {
    let page = Page::parse(&query)?;
    let (views, next) = page.of(app.control.workers().await?, |view| view.record.id.as_str());
    let mut response = ok(&views.into_iter().map(body).collect::<Vec<_>>());
    put_next(&mut response, next.as_deref());
    Ok(response)
}

pub(crate) async fn one(State(app): State<App>, Param(id): Param) -> Result<Response, Error> {
    Ok(ok(&body(app.control.worker(&id).await?)))
}

pub(crate) async fn delete(State(app): State<App>, Param(id): Param) -> Result<Response, Error> {
    app.control.delete_worker(&id).await?;
    Ok(ok(&Status { status: "deleted".to_owned() }))
}

fn body(view: WorkerView) -> Worker {
    let record = view.record;
    Worker {
        id: record.id.to_string(),
        hostname: record.hostname,
        status: record.status,
        providers: record.providers,
        capabilities: record.capabilities,
        capacity: record.capacity,
        last_heartbeat: record.last_heartbeat.whole_seconds(),
        created_at: record.created_at.whole_seconds(),
        updated_at: record.updated_at.whole_seconds(),
        stale: view.stale,
    }
}
