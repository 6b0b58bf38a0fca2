//! What handlers take in and give back.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::{Fault, OwnerId};

use crate::app::App;
use crate::auth::{self, Caller, Role};
use crate::error::Error;
use crate::{body, json, query};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON answer.
pub(crate) fn answer<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    let mut response = Response::new(Body::from(json::write(value)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

pub(crate) fn ok<T: Serialize + ?Sized>(value: &T) -> Response {
    answer(StatusCode::OK, value)
}

/// A JSON body, whatever its content type says.
pub(crate) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let bytes = body::collect(request.into_body(), app.config.max_body_bytes).await?;
        Ok(Self(json::read(&bytes)?))
    }
}

/// The one parameter of a path, percent-decoded (BUG-33).
pub(crate) struct Param(pub String);

impl FromRequestParts<App> for Param {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(Error(Fault::bad_request("the path is not UTF-8"))),
        }
    }
}

/// The two parameters of a path, decoded alike.
pub(crate) struct Params(pub String, pub String);

impl FromRequestParts<App> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        match Path::<(String, String)>::from_request_parts(parts, app).await {
            Ok(Path((one, two))) => Ok(Self(one, two)),
            Err(_) => Err(Error(Fault::bad_request("the path is not UTF-8"))),
        }
    }
}

impl FromRequestParts<App> for query::Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Error> {
        Ok(Self::parse(parts.uri.query())?)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let nobody = Self { role: Role::Anonymous, tenant: None };
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(nobody))
    }
}

impl Caller {
    /// For routes that look things up.
    pub fn context(&self) -> control::Context {
        control::Context { tenant: self.tenant.clone(), owner: None }
    }

    /// For routes that create: X-User-ID names the owner.
    pub fn context_with_owner(&self, headers: &HeaderMap) -> Result<control::Context, Fault> {
        let owner = auth::text(headers, "x-user-id")?.map(owner_id).transpose()?;
        Ok(control::Context { tenant: self.tenant.clone(), owner })
    }
}

/// An owner id of a header or a body.
pub(crate) fn owner_id(text: &str) -> Result<OwnerId, Fault> {
    OwnerId::parse(text.trim()).map_err(|e| Fault::bad_request(e.to_string()))
}
