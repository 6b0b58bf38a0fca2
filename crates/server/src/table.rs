//! Every route, what it asks of its caller, and who handles it. The router is built from this
//! table and from nothing else; tests walk it.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use types::{ErrorCode, Fault};

use crate::app::App;
use crate::auth::{Caller, Role, Scope};
use crate::error::Error;
use crate::routes::{
    archive, content, exec, execs, files, images, providers, sandboxes, session, system, workers,
};

const BASE: &str = "/api/v1";

/// How a path ends: the root of a collection or resource may have a slash behind it, an action
/// may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Action,
}

pub(crate) struct Row {
    /// GET answers HEAD too.
    pub method: &'static str,
    pub path: &'static str,
    pub kind: Kind,
    pub scope: Scope,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

const fn row(
    method: &'static str,
    path: &'static str,
    kind: Kind,
    scope: Scope,
    handler: fn(MethodFilter) -> MethodRouter<App>,
) -> Row {
    Row { method, path, kind, scope, handler }
}

use Kind::{Action, Root};

#[rustfmt::skip]
pub(crate) static ROUTES: &[Row] = &[
    row("GET",    "/sandboxes",                  Root,   Scope::Read,  |m| on(m, sandboxes::list)),
    row("POST",   "/sandboxes",                  Root,   Scope::Api,   |m| on(m, sandboxes::spawn)),
    row("DELETE", "/sandboxes",                  Root,   Scope::Api,   |m| on(m, sandboxes::prune)),
    row("POST",   "/sandboxes/admission",        Action, Scope::Read,  |m| on(m, sandboxes::admission)),
    row("GET",    "/sandboxes/{id}",             Root,   Scope::Read,  |m| on(m, sandboxes::one)),
    row("DELETE", "/sandboxes/{id}",             Root,   Scope::Api,   |m| on(m, sandboxes::destroy)),
    row("POST",   "/sandboxes/{id}/extend",      Action, Scope::Api,   |m| on(m, sandboxes::extend)),
    row("GET",    "/sandboxes/{id}/logs",        Action, Scope::Read,  |m| on(m, sandboxes::logs)),
    row("GET",    "/sandboxes/{id}/stats",       Action, Scope::Read,  |m| on(m, sandboxes::stats)),
    row("POST",   "/sandboxes/{id}/exec",        Action, Scope::Api,   |m| on(m, exec::exec)),
    row("GET",    "/sandboxes/{id}/exec/ws",     Action, Scope::Api,   |m| on(m, session::upgrade)),
    row("GET",    "/sandboxes/{id}/execs",       Root,   Scope::Read,  |m| on(m, execs::list)),
    row("GET",    "/sandboxes/{id}/execs/{eid}", Root,   Scope::Read,  |m| on(m, execs::one)),
    row("GET",    "/sandboxes/{id}/execs/{eid}/output", Action, Scope::Read, |m| on(m, execs::output)),
    row("POST",   "/sandboxes/{id}/execs/{eid}/stdin",  Action, Scope::Api,  |m| on(m, execs::stdin)),
    row("POST",   "/sandboxes/{id}/execs/{eid}/signal", Action, Scope::Api,  |m| on(m, execs::signal)),
    row("GET",    "/sandboxes/{id}/execs/{eid}/wait",   Action, Scope::Read, |m| on(m, execs::wait)),
    row("POST",   "/sandboxes/{id}/files",       Root,   Scope::Api,   |m| on(m, files::write)),
    row("GET",    "/sandboxes/{id}/files",       Root,   Scope::Read,  |m| on(m, files::read)),
    row("DELETE", "/sandboxes/{id}/files",       Root,   Scope::Api,   |m| on(m, files::remove)),
    row("GET",    "/sandboxes/{id}/files/archive", Action, Scope::Read, |m| on(m, archive::get)),
    row("PUT",    "/sandboxes/{id}/files/archive", Action, Scope::Api, |m| on(m, archive::put)),
    row("GET",    "/sandboxes/{id}/files/content", Action, Scope::Read, |m| on(m, content::get)),
    row("PUT",    "/sandboxes/{id}/files/content", Action, Scope::Api, |m| on(m, content::put)),
    row("GET",    "/sandboxes/{id}/files/list",  Action, Scope::Read,  |m| on(m, files::list)),
    row("GET",    "/sandboxes/{id}/files/stat",  Action, Scope::Read,  |m| on(m, files::stat)),
    row("GET",    "/sandboxes/{id}/files/glob",  Action, Scope::Read,  |m| on(m, files::glob)),
    row("POST",   "/sandboxes/{id}/files/move",  Action, Scope::Api,   |m| on(m, files::rename)),
    row("POST",   "/sandboxes/{id}/files/chmod", Action, Scope::Api,   |m| on(m, files::chmod)),
    row("GET",    "/providers",                  Root,   Scope::Any,   |m| on(m, providers::list)),
    row("POST",   "/providers/test",             Action, Scope::Any,   |m| on(m, providers::test)),
    row("GET",    "/providers/{name}",           Root,   Scope::Any,   |m| on(m, providers::one)),
    row("GET",    "/images",                     Root,   Scope::Admin, |m| on(m, images::list)),
    row("POST",   "/images/pull",                Action, Scope::Admin, |m| on(m, images::pull)),
    row("POST",   "/images/prune",               Action, Scope::Admin, |m| on(m, images::prune)),
    row("GET",    "/images/{name}",              Root,   Scope::Admin, |m| on(m, images::one)),
    row("DELETE", "/images/{name}",              Root,   Scope::Admin, |m| on(m, images::delete)),
    row("POST",   "/images/{name}/tag",          Action, Scope::Admin, |m| on(m, images::tag)),
    row("GET",    "/snapshots",                  Root,   Scope::Any,   |m| on(m, system::snapshots)),
    row("GET",    "/pool/status",                Action, Scope::Any,   |m| on(m, system::pool)),
    row("GET",    "/workers",                    Root,   Scope::Any,   |m| on(m, workers::list)),
    row("GET",    "/workers/{id}",               Root,   Scope::Any,   |m| on(m, workers::one)),
    row("GET",    "/health",                     Action, Scope::None,  |m| on(m, system::health)),
    row("GET",    "/live",                       Action, Scope::None,  |m| on(m, system::live)),
    row("GET",    "/ready",                      Action, Scope::None,  |m| on(m, system::ready)),
    row("GET",    "/admin/providers",            Root,   Scope::Admin, |m| on(m, providers::list)),
    row("POST",   "/admin/providers/test",       Action, Scope::Admin, |m| on(m, providers::test)),
    row("GET",    "/admin/providers/{name}",     Root,   Scope::Admin, |m| on(m, providers::one)),
    row("GET",    "/admin/workers",              Root,   Scope::Admin, |m| on(m, workers::list)),
    row("GET",    "/admin/workers/{id}",         Root,   Scope::Admin, |m| on(m, workers::one)),
    row("DELETE", "/admin/workers/{id}",         Root,   Scope::Admin, |m| on(m, workers::delete)),
];

pub(crate) fn router(app: App) -> Router {
    let locked = app.config.auth.enabled();
    let mut router = Router::new();
    for row in ROUTES {
        let scope = row.scope;
        let check = from_fn(move |request, next| admit(scope, locked, request, next));
        let handler = (row.handler)(filter(row.method)).route_layer(check);
        let path = format!("{BASE}{}", row.path);
        if row.kind == Root {
            router = router.route(&format!("{path}/"), handler.clone());
        }
        router = router.route(&path, handler);
    }
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(app)
}

fn filter(method: &str) -> MethodFilter {
    let method = Method::from_bytes(method.as_bytes()).expect("the table holds methods");
    MethodFilter::try_from(method).expect("the table holds standard methods")
}

/// Whether a path is below the API, where keys are asked for before anything else.
pub(crate) fn is_api(path: &str) -> bool {
    below(path, BASE)
}

pub(crate) fn is_admin(path: &str) -> bool {
    let rest = path.strip_prefix(BASE);
    rest.is_some_and(|rest| below(rest, "/admin") || below(rest, "/images"))
}

/// Whether a route exists here that asks for no key.
pub(crate) fn is_public(path: &str) -> bool {
    let Some(rest) = path.strip_prefix(BASE) else { return false };
    ROUTES.iter().any(|row| row.scope == Scope::None && row.path == rest)
}

fn below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn admit(scope: Scope, locked: bool, request: Request, next: Next) -> Response {
    let role = request.extensions().get::<Caller>().map_or(Role::Anonymous, |c| c.role);
    if role.may(scope, locked) {
        return next.run(request).await;
    }
    let fault = Fault::new(ErrorCode::Forbidden, "this key does not allow that");
    Error(fault).into_response()
}

async fn unknown() -> Error {
    Error(Fault::not_found("no such route"))
}

async fn wrong_method() -> Error {
    Error(Fault::new(ErrorCode::MethodNotAllowed, "this route does not take that method"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_public() {
        let public: Vec<_> =
            ROUTES.iter().filter(|r| r.scope == Scope::None).map(|r| r.path).collect();
        assert_eq!(public, ["/health", "/live", "/ready"]);
        assert!(is_public("/api/v1/health") && !is_public("/api/v1/healthy"));
        assert!(is_api("/api/v1") && is_api("/api/v1/x") && !is_api("/api/v10"));
        assert!(is_admin("/api/v1/admin") && !is_admin("/api/v1/administer"));
        assert!(is_admin("/api/v1/images/x") && !is_admin("/api/v1/imagesx"));
    }

    #[test]
    fn bug_1_every_route_below_admin_asks_for_the_admin_scope() {
        for row in ROUTES {
            // Images are the whole machine's.
            let admins = ["/admin", "/images"].iter().any(|part| row.path.starts_with(part));
            assert_eq!(row.scope == Scope::Admin, admins, "{}", row.path);
        }
    }
}
