//! `/sandboxes/{id}/files/archive`: directories as tar, plain or compressed, in and out.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{ACCEPT_RANGES, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use protocol::worker::{ArchiveFormat, FileOp, FileReply};
use types::Fault;
use types::api::Status;

use super::content::raw;
use super::files::{path_of, unexpected};
use crate::app::App;
use crate::auth::Caller;
use crate::digest;
use crate::error::Error;
use crate::extract::{Param, ok};
use crate::query::Query;
use crate::upload::Upload;

pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let (path, format) = (path_of(&query)?, format(&query)?);
    super::content::plain(&headers)?;
    let upload = Upload::new(body, digest::promised(&headers)?);
    let op = FileOp::Unpack { path, format, content: upload.content() };
    if let Err(fault) = app.control.files(&caller.context(), &id, op).await {
        upload.refuse().await;
        return Err(Error(fault));
    }
    Ok(ok(&Status { status: "written".to_owned() }))
}

pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
) -> Result<Response, Error> {
    let (path, format) = (path_of(&query)?, format(&query)?.unwrap_or(ArchiveFormat::Tar));
    let op = FileOp::Pack { path, format };
    match app.control.files(&caller.context(), &id, op).await? {
        FileReply::Archive(content) => {
            let mut response = raw(content, None);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind(format)));
            // An archive is made anew each time.
            response.headers_mut().remove(ACCEPT_RANGES);
            Ok(response)
        }
        FileReply::Done
        | FileReply::Content { .. }
        | FileReply::Entries(_)
        | FileReply::File(_)
        | FileReply::Paths(_) => Err(unexpected()),
    }
}

fn kind(format: ArchiveFormat) -> &'static str {
    match format {
        ArchiveFormat::Tar => "application/x-tar",
        ArchiveFormat::Gzip => "application/gzip",
        ArchiveFormat::Zstd => "application/zstd",
    }
}

fn format(query: &Query) -> Result<Option<ArchiveFormat>, Fault> {
    Ok(Some(match query.get("format") {
        None | Some("") => return Ok(None),
        Some("tar") => ArchiveFormat::Tar,
        Some("gzip") => ArchiveFormat::Gzip,
        Some("zstd") => ArchiveFormat::Zstd,
        Some(_) => return Err(Fault::bad_request("format is tar, gzip or zstd")),
    }))
}
