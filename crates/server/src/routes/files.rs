//! `/sandboxes/{id}/files`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use protocol::worker::{ByteStream, FileInfo, FileOp, FileReply};
use types::Fault;
use types::api::{self, ChmodRequest, MoveRequest, Status, WriteRequest};

use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, chain};
use crate::extract::{Json, Param, ok};
use crate::page::{Page, put_next};
use crate::query::Query;

/// Content is passed on in pieces of this size.
const PIECE: usize = 64 * 1024;

pub(crate) async fn write(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    Json(request): Json<WriteRequest>,
) -> Result<Response, Error> {
    let path = needed("path", request.path)?;
    let mode = request.mode.filter(|m| !m.is_empty()).map(|m| octal(&m)).transpose()?;
    let content = pieces(request.content.unwrap_or_default().into_bytes().into());
    done(&app, &caller, &id, FileOp::Write { path, mode, content }, "written").await
}

pub(crate) async fn read(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let op = FileOp::Read { path: path_of(&query)?, range: None };
    match app.control.files(&caller.context(), &id, op).await? {
        FileReply::Content { size, content } => Ok(raw(size, content)),
        FileReply::Done
        | FileReply::Archive(_)
        | FileReply::Entries(_)
        | FileReply::File(_)
        | FileReply::Paths(_) => Err(unexpected()),
    }
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let page = Page::parse(&query)?;
    let path = match query.get("path") {
        None | Some("") => "/".to_owned(),
        Some(_) => path_of(&query)?,
    };
    match app.control.files(&caller.context(), &id, FileOp::List { path }).await? {
        FileReply::Entries(entries) => {
            let (entries, next) = page.of(entries, |entry| &entry.path);
            let mut response = ok(&entries.into_iter().map(info).collect::<Vec<_>>());
            put_next(&mut response, next.as_deref());
            Ok(response)
        }
        FileReply::Done
        | FileReply::Archive(_)
        | FileReply::Content { .. }
        | FileReply::File(_)
        | FileReply::Paths(_) => Err(unexpected()),
    }
}

pub(crate) async fn stat(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let op = FileOp::Stat { path: path_of(&query)? };
    match app.control.files(&caller.context(), &id, op).await? {
        FileReply::File(entry) => Ok(ok(&info(entry))),
        FileReply::Done
        | FileReply::Archive(_)
        | FileReply::Content { .. }
        | FileReply::Entries(_)
        | FileReply::Paths(_) => Err(unexpected()),
    }
}

pub(crate) async fn glob(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let page = Page::parse(&query)?;
    let pattern = no_nul(query.require("pattern")?)?;
    match app.control.files(&caller.context(), &id, FileOp::Glob { pattern }).await? {
        FileReply::Paths(mut paths) => {
            if page != Page::default() {
                paths.sort_unstable();
            }
            let (paths, next) = page.of(paths, |path| path);
            let mut response = ok(&paths);
            put_next(&mut response, next.as_deref());
            Ok(response)
        }
        FileReply::Done
        | FileReply::Archive(_)
        | FileReply::Content { .. }
        | FileReply::Entries(_)
        | FileReply::File(_) => Err(unexpected()),
    }
}

pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let recursive = query.get("recursive") == Some("true");
    let op = FileOp::Delete { path: path_of(&query)?, recursive };
    done(&app, &caller, &id, op, "deleted").await
}

pub(crate) async fn rename(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    Json(request): Json<MoveRequest>,
) -> Result<Response, Error> {
    let from = needed("old_path", request.old_path)?;
    let to = needed("new_path", request.new_path)?;
    done(&app, &caller, &id, FileOp::Move { from, to }, "moved").await
}

pub(crate) async fn chmod(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    Json(request): Json<ChmodRequest>,
) -> Result<Response, Error> {
    let path = needed("path", request.path)?;
    let mode = octal(&needed("mode", request.mode)?)?;
    done(&app, &caller, &id, FileOp::Chmod { path, mode }, "chmod applied").await
}

async fn done(
    app: &App,
    caller: &Caller,
    id: &str,
    op: FileOp,
    word: &str,
) -> Result<Response, Error> {
    app.control.files(&caller.context(), id, op).await?;
    Ok(ok(&Status { status: word.to_owned() }))
}

pub(super) fn unexpected() -> Error {
    Error(Fault::internal("the worker gave another kind of answer than was asked for"))
}

/// A file's bytes. If they end early the connection breaks off: a short file must not look whole.
fn raw(size: u64, content: ByteStream) -> Response {
    let mut response = Response::new(Body::from_stream(told(content)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Content, with a word in the log if it breaks off.
pub(super) fn told(content: ByteStream) -> impl Stream<Item = Result<Bytes, Fault>> + Send {
    content.map(|piece| {
        piece.inspect_err(|fault| tracing::info!(error = %chain(fault), "reading a file broke off"))
    })
}

fn pieces(content: Bytes) -> ByteStream {
    Box::pin(stream::unfold(content, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        Some((Ok(piece), rest))
    }))
}

pub(super) fn path_of(query: &Query) -> Result<String, Fault> {
    no_nul(query.require("path")?)
}

fn needed(name: &str, text: Option<String>) -> Result<String, Fault> {
    let text = text.filter(|t| !t.trim().is_empty());
    no_nul(text.ok_or_else(|| Fault::bad_request(format!("{name} is required")))?)
}

fn no_nul(text: String) -> Result<String, Fault> {
    if text.contains('\0') {
        return Err(Fault::bad_request("a path can't hold a NUL"));
    }
    Ok(text)
}

/// Permission bits as octal text.
pub(super) fn octal(text: &str) -> Result<u32, Fault> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let bits = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    bits.filter(|m| *m <= 0o7777).ok_or_else(|| Fault::bad_request("mode is octal text, like 0644"))
}

/// A file as clients see it, the same on every provider (BUG-27).
fn info(file: FileInfo) -> api::FileInfo {
    api::FileInfo {
        path: file.path,
        size: file.size,
        mode: format!("{:04o}", file.mode & 0o7777),
        is_dir: file.is_dir,
        mod_time: file.modified.whole_seconds().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use types::Timestamp;

    use super::*;

    #[test]
    fn modes_are_octal_text() {
        for (text, bits) in [("0644", 0o644), ("644", 0o644), ("04755", 0o4755), ("0", 0)] {
            assert_eq!(octal(text).unwrap(), bits);
        }
        for bad in ["", "rwx", "0o644", "888", "77777", "-1", "+644", "0644 "] {
            assert!(octal(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bug_27_one_form_for_every_provider() {
        let file = FileInfo {
            path: "/workspace/d".into(),
            size: 1,
            mode: 0o040_755,
            is_dir: true,
            modified: Timestamp::parse("2026-02-01T10:00:00.5+02:00").unwrap(),
        };
        let told = info(file);
        assert_eq!(told.mode, "0755");
        assert_eq!(told.mod_time, "2026-02-01T08:00:00Z");
    }

    #[tokio::test]
    async fn content_is_passed_on_in_pieces() {
        let sizes: Vec<_> = pieces(Bytes::from(vec![0; 2 * PIECE + 1]))
            .map(|piece| piece.unwrap().len())
            .collect()
            .await;
        assert_eq!(sizes, [PIECE, PIECE, 1]);
    }
}
