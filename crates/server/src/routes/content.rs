//! `/sandboxes/{id}/files/content`: raw bytes of any size, in and out.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::worker::{ByteStream, FileOp, FileReply, ReadRange};
use types::api::Written;
use types::{ErrorCode, Fault};

use super::files::{octal, path_of, told, unexpected};
use crate::app::App;
use crate::auth::Caller;
use crate::digest::{self, Sum, Summing};
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
    let path = path_of(&query)?;
    let mode = query.get("mode").filter(|m| !m.is_empty()).map(octal).transpose()?;
    plain(&headers)?;
    let upload = Upload::new(body, digest::promised(&headers)?);
    let op = FileOp::Write { path, mode, content: upload.content() };
    if let Err(fault) = app.control.files(&caller.context(), &id, op).await {
        upload.refuse().await;
        return Err(Error(fault));
    }
    Ok(ok(&Written { status: "written".to_owned(), size: upload.received().await }))
}

/// A body is stored as it comes: one that is packed would be stored packed.
pub(super) fn plain(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(_) => Err(Fault::bad_request("a Content-Encoding is not undone: send it plain")),
    }
}

pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let path = path_of(&query)?;
    let open = async |range| match app
        .control
        .files(&caller.context(), &id, FileOp::Read { path: path.clone(), range })
        .await?
    {
        FileReply::Content { size, content } => Ok((size, content)),
        FileReply::Done
        | FileReply::Archive(_)
        | FileReply::Entries(_)
        | FileReply::File(_)
        | FileReply::Paths(_) => Err(unexpected()),
    };
    let asked = digest::wanted(&headers);
    let sum = if asked.is_empty() { None } else { Some(sum_of(open(None).await?.1).await?) };
    let range = range(&headers);
    let (size, content) = open(range).await?;
    let mut response = match range.map(|r| r.of(size)) {
        None => whole(size, content).await,
        Some(Some(part)) => {
            let mut response = raw(content, Some(part.end - part.start));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let told = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            put_header(&mut response, CONTENT_RANGE, &told);
            response
        }
        Some(None) => return Ok(no_such_part(size)),
    };
    for name in asked {
        let (name, value) = digest::told(name, &sum.unwrap_or_default());
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// Reads a file to its end, holding none of it.
async fn sum_of(mut content: ByteStream) -> Result<Sum, Fault> {
    let mut sum = Summing::default();
    while let Some(piece) = content.next().await {
        sum.add(&piece?);
    }
    Ok(sum.sum())
}

/// A file of which the size is known; some, of /proc, have content and say that they have none.
async fn whole(size: u64, mut content: ByteStream) -> Response {
    if size > 0 {
        return raw(content, Some(size));
    }
    match content.next().await {
        None => raw(Box::pin(stream::empty()), Some(0)),
        Some(first) => raw(Box::pin(stream::iter([first]).chain(content)), None),
    }
}

/// Bytes as they come. If they end early the connection breaks off: a short file must not look
/// whole.
pub(super) fn raw(content: ByteStream, length: Option<u64>) -> Response {
    let mut response = Response::new(Body::from_stream(told(content)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn no_such_part(size: u64) -> Response {
    let words = format!("the file has {size} bytes: no such part of it");
    let mut response = Error(Fault::new(ErrorCode::RangeNotSatisfiable, words)).into_response();
    put_header(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn put_header(response: &mut Response, name: http::HeaderName, text: &str) {
    let value = HeaderValue::from_str(text).expect("numbers are ASCII");
    response.headers_mut().insert(name, value);
}

/// The one part that is asked for. What cannot be understood, or is of several parts, is answered
/// with the whole, and so is a part under a condition: files have no validators here.
fn range(headers: &HeaderMap) -> Option<ReadRange> {
    if headers.contains_key(IF_RANGE) {
        return None;
    }
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    match (number(start)?, number(end)?) {
        (None, None) => None,
        (Some(start), Some(end)) if start > end => None,
        (start, end) => Some(ReadRange { start, end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_range_is_understood() {
        let read = |text: &str| {
            let headers = [(RANGE, text.parse().unwrap())].into_iter().collect();
            range(&headers).map(|r| (r.start, r.end))
        };
        assert_eq!(read("bytes=0-99"), Some((Some(0), Some(99))));
        assert_eq!(read("bytes=5-"), Some((Some(5), None)));
        assert_eq!(read("bytes=-7"), Some((None, Some(7))));
        for whole in
            ["bytes=-", "bytes=9-1", "bytes=0-1,3-4", "lines=1-2", "bytes=+1-2", "bytes=a-b", ""]
        {
            assert_eq!(read(whole), None, "{whole}");
        }
        let conditional = [(RANGE, "bytes=0-1"), (IF_RANGE, "\"x\"")];
        let conditional = conditional.map(|(n, v)| (n, v.parse().unwrap())).into_iter().collect();
        assert_eq!(range(&conditional), None);
    }
}
