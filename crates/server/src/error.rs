//! Faults as answers. The one place where an HTTP status is chosen.

use std::error::Error as StdError;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use types::api::ErrorBody;
use types::{ErrorCode, Fault};

use crate::extract::answer;

/// What handlers fail with.
#[derive(Debug)]
pub(crate) struct Error(pub Fault);

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

/// The fault behind an answer, for the log line that the door writes.
#[derive(Clone)]
pub(crate) struct Cause(pub Arc<Fault>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let fault = self.0;
        let body =
            ErrorBody { code: fault.code.as_str().to_owned(), message: fault.message.clone() };
        let mut response = answer(status(fault.code), &body);
        if let Some(after) = fault.retries_after() {
            let seconds = after.as_secs().max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Cause(Arc::new(fault)));
        response
    }
}

/// The status of a code.
pub(crate) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Conflict | ErrorCode::SandboxDead => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        // 404 would surface in the published clients as a missing sandbox.
        ErrorCode::FileNotFound
        | ErrorCode::NotAFile
        | ErrorCode::NotADirectory
        | ErrorCode::DiskFull
        | ErrorCode::ImageNotFound
        | ErrorCode::UserNotFound
        | ErrorCode::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::ResourceLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A failure and everything below it, on one line, for the log only.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bug_53_the_private_cause_stays_out_of_the_answer() {
        let fault = Fault::internal("reading the store failed").caused_by("/var/lib/x: SELECT");
        assert_eq!(chain(&fault), "reading the store failed: /var/lib/x: SELECT");
        let response = Error(fault).into_response();
        assert_eq!(response.status(), 500);
        let body = futures_util::FutureExt::now_or_never(axum::body::to_bytes(
            response.into_body(),
            usize::MAX,
        ));
        let body = String::from_utf8(body.unwrap().unwrap().to_vec()).unwrap();
        assert!(body.contains("reading the store failed") && !body.contains("SELECT"), "{body}");
    }

    #[test]
    fn a_fault_that_says_when_to_retry_is_told_so() {
        let fault = Fault::new(ErrorCode::ResourceLimit, "full").caused_by("inside");
        let fault = fault.retry_after(std::time::Duration::from_secs(30));
        assert_eq!(chain(&fault), "full: worth a retry after 30s: inside");
        let response = Error(fault).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (429, &"30".parse().unwrap())
        );
        let plain = Error(Fault::new(ErrorCode::ResourceLimit, "full")).into_response();
        assert!(plain.headers().get(RETRY_AFTER).is_none());
    }

    #[test]
    fn every_code_is_an_error_status() {
        for code in ErrorCode::ALL {
            assert!(status(code).as_u16() >= 400, "{code}");
        }
    }
}
