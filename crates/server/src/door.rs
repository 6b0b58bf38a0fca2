//! The way of every request: id, cross-origin rules, guards, keys, routes. In this order, since it
//! decides which refusal wins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::ORIGIN;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tower::Service;
use types::{ErrorCode, Fault};

use crate::access_log::{Entry, Tracked};
use crate::app::App;
use crate::auth::{self, Caller};
use crate::error::{Cause, Error, chain};
use crate::phase::Busy;
use crate::{request_id, site, table};

pub(crate) struct Door {
    app: App,
    router: Router,
}

impl Door {
    pub fn new(app: App) -> Self {
        Self { router: table::router(Arc::clone(&app)), app }
    }

    /// Answers a request. Never fails: whatever goes wrong is an answer too.
    pub async fn pass(&self, request: Request<Incoming>, busy: Busy) -> Response<Tracked> {
        let id = request_id::choose(request.headers());
        let clock = Arc::clone(&self.app.config.clock);
        let entry = Entry::new(request.method().clone(), request.uri().clone(), id, clock);
        let origin = request.headers().get(ORIGIN).cloned();
        let guarded = AssertUnwindSafe(self.answer(request.map(Body::new))).catch_unwind();
        let mut response = tokio::select! {
            answered = guarded => answered.unwrap_or_else(|_| {
                Error(Fault::internal("handling the request failed")).into_response()
            }),
            () = self.app.closed.cancelled() => stopping(),
        };
        if let Some(Cause(fault)) = response.extensions_mut().remove::<Cause>() {
            report(&fault, response.status(), &entry);
        }
        self.app.cors.stamp(origin.as_ref(), response.headers_mut());
        response.headers_mut().insert(request_id::HEADER, entry.request_id.clone());
        let status = response.status();
        response.map(|body| Tracked::new(body, status, entry, busy))
    }

    async fn answer(&self, mut request: Request<Body>) -> Response {
        let path = request.uri().path();
        if request.method() == Method::OPTIONS && table::is_api(path) {
            return self.preflight(&request);
        }
        match self.identify(&request) {
            Ok(Some(caller)) => {
                request.extensions_mut().insert(caller);
            }
            Ok(None) => {}
            Err(fault) => return Error(fault).into_response(),
        }
        match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn preflight(&self, request: &Request<Body>) -> Response {
        if self.app.cors.permits(request.headers()) {
            return Response::new(Body::empty());
        }
        Error(Fault::new(ErrorCode::Forbidden, "this origin is not allowed")).into_response()
    }

    /// Who is asking. `None` where nobody has to say; a fault if they may not come in.
    fn identify(&self, request: &Request<Body>) -> Result<Option<Caller>, Fault> {
        let config = &self.app.config;
        let (headers, path) = (request.headers(), request.uri().path());
        if !config.auth.enabled() {
            site::guard(headers, request.uri(), config.loopback_only, &self.app.cors)?;
        }
        if !table::is_api(path) || table::is_public(path) {
            return Ok(None);
        }
        let mut role = auth::authenticate(&config.auth, headers)?;
        if table::is_admin(path) {
            role = auth::admit_admin(&config.auth, role)?;
        }
        Ok(Some(Caller { role, tenant: auth::tenant(headers)? }))
    }
}

fn stopping() -> Response {
    let mut response = Error(Fault::unavailable("the server is stopping")).into_response();
    // That it stops was somebody's will: no error of ours.
    response.extensions_mut().remove::<Cause>();
    response
}

/// A client's mistake is at most INFO; at ERROR somebody has to look.
fn report(fault: &Fault, status: StatusCode, entry: &Entry) {
    let (path, id) = (entry.uri.path(), entry.request_id());
    if status.is_server_error() {
        tracing::error!(
            method = %entry.method, path, request_id = id, code = %fault.code,
            error = %chain(fault), "a request failed"
        );
    } else {
        tracing::debug!(
            method = %entry.method, path, request_id = id, code = %fault.code,
            error = %chain(fault), "a request was refused"
        );
    }
}
