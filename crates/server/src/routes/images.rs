//! `/images`: for those who run the server. Names alone: no caller brings files, or names a path.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use protocol::worker::{ImageInfo, Prune, PullEvent, PullStream};
use tokio_util::sync::CancellationToken;
use types::api::{
    Image, PruneImagesRequest, PrunedImages, PullLine, PullRequest, Status, TagRequest,
};
use types::{Fault, duration};

use crate::app::App;
use crate::error::Error;
use crate::extract::{Json, Param, ok};
use crate::json;

/// A blank line after so much silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(crate) async fn list(State(app): State<App>) -> Result<Response, Error> {
    let images = app.control.images().await?;
    Ok(ok(&images.into_iter().map(body).collect::<Vec<_>>()))
}

pub(crate) async fn one(State(app): State<App>, Param(name): Param) -> Result<Response, Error> {
    Ok(ok(&body(app.control.image(&name).await?)))
}

pub(crate) async fn delete(State(app): State<App>, Param(name): Param) -> Result<Response, Error> {
    app.control.remove_image(&name).await?;
    Ok(ok(&Status { status: "deleted".to_owned() }))
}

pub(crate) async fn tag(
    State(app): State<App>,
    Param(name): Param,
    Json(request): Json<TagRequest>,
) -> Result<Response, Error> {
    Ok(ok(&body(app.control.tag_image(&name, &request.tag).await?)))
}

pub(crate) async fn prune(
    State(app): State<App>,
    Json(request): Json<PruneImagesRequest>,
) -> Result<Response, Error> {
    let unused_for = request.unused_for.as_deref().map(duration::parse_unsigned).transpose();
    let unused_for = unused_for.map_err(|e| Fault::bad_request(format!("unused_for is {e}")))?;
    let keep_bytes = request.keep_mb.map(|mb| mb.saturating_mul(1 << 20));
    let all = request.all.unwrap_or(false);
    let pruned =
        app.control.prune_images(Prune { nameless: true, all, unused_for, keep_bytes }).await?;
    Ok(ok(&PrunedImages {
        removed: pruned.removed.into_iter().map(body).collect(),
        freed_bytes: pruned.freed_bytes,
    }))
}

/// The pull goes on whether or not the caller stays to see its end.
pub(crate) async fn pull(
    State(app): State<App>,
    Json(request): Json<PullRequest>,
) -> Result<Response, Error> {
    let mut events = app.control.pull_image(&request.image).await?;
    if request.stream.unwrap_or(false) {
        return Ok(respond(events, app.closing.clone()));
    }
    loop {
        match events.next().await {
            Some(PullEvent::Progress(_)) => {}
            Some(PullEvent::Done(done)) => return Ok(ok(&body(*done?))),
            None => return Err(lost().into()),
        }
    }
}

fn respond(events: PullStream, closing: CancellationToken) -> Response {
    let lines = stream::unfold(Some(events), move |events| {
        let closing = closing.clone();
        async move {
            let mut events = events?;
            let event = tokio::select! {
                biased;
                event = events.next() => event.unwrap_or_else(|| PullEvent::Done(Err(lost()))),
                () = closing.cancelled() => PullEvent::Done(Err(Fault::unavailable("the server is stopping"))),
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    return Some((Ok::<_, Infallible>(Bytes::from_static(b"\n")), Some(events)));
                }
            };
            let (line, last) = line(event);
            Some((Ok(Bytes::from(json::write(&line))), (!last).then_some(events)))
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A line, and whether it is the last.
fn line(event: PullEvent) -> (PullLine, bool) {
    match event {
        PullEvent::Progress(p) => {
            let line = PullLine {
                status: "pulling".to_owned(),
                layers: Some(p.layers),
                layers_done: Some(p.layers_done),
                bytes: Some(p.bytes),
                total_bytes: Some(p.total_bytes),
                ..PullLine::default()
            };
            (line, false)
        }
        PullEvent::Done(Ok(info)) => {
            let image = Some(body(*info));
            (PullLine { status: "done".to_owned(), image, ..PullLine::default() }, true)
        }
        PullEvent::Done(Err(fault)) => {
            let line = PullLine {
                status: "error".to_owned(),
                code: Some(fault.code.as_str().to_owned()),
                message: Some(fault.message),
                ..PullLine::default()
            };
            (line, true)
        }
    }
}

fn lost() -> Fault {
    Fault::unavailable("the worker that pulls was lost")
}

fn body(info: ImageInfo) -> Image {
    Image {
        names: info.names,
        digest: info.digest,
        known_as: info.known_as,
        size_bytes: info.size_bytes,
        entries: info.entries,
        layers: info.layers.len() as u64,
        created: info.created.whole_seconds(),
        last_used: info.last_used.whole_seconds(),
        env: info.env,
        workdir: info.workdir,
        user: info.user,
    }
}

#[cfg(test)]
mod tests {
    use protocol::worker::PullProgress;

    use super::*;

    async fn text(events: Vec<PullEvent>) -> String {
        let body = respond(Box::pin(stream::iter(events)), CancellationToken::new()).into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_pull_says_how_far_it_is_and_how_it_ends() {
        let progress = PullProgress { layers: 2, layers_done: 1, bytes: 3, total_bytes: 9 };
        let end = PullEvent::Done(Err(Fault::unavailable("no line")));
        let told = text(vec![PullEvent::Progress(progress), end]).await;
        assert_eq!(
            told,
            concat!(
                "{\"status\":\"pulling\",\"layers\":2,\"layers_done\":1,\"bytes\":3,",
                "\"total_bytes\":9}\n",
                "{\"status\":\"error\",\"code\":\"UNAVAILABLE\",\"message\":\"no line\"}\n"
            )
        );
        assert!(text(vec![]).await.contains("lost"), "a stream without an end says so");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_and_a_stopping_server_says_so() {
        let closing = CancellationToken::new();
        let silent: PullStream = Box::pin(stream::pending());
        let mut body = respond(silent, closing.clone()).into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "\n");
        closing.cancel();
        assert!(body.next().await.unwrap().unwrap().starts_with(b"{\"status\":\"error\""));
        assert!(body.next().await.is_none());
    }
}
