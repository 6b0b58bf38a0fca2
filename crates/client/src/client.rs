//! The connection: where the server is, what is sent with every call, how answers are read.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::Secret;

use crate::Error;

/// How long a call that does no work of its own may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an error's body is read: enough for any message, whoever sent it.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// How large a JSON answer may be: two captured streams of the largest kind and their escapes.
const MAX_JSON_BODY: usize = 256 * 1024 * 1024;

/// What stays as it is in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How to reach a server and as whom.
#[derive(Clone)]
pub struct Options {
    /// `http://host:port`, with or without a closing slash.
    pub server: String,
    /// Sent as `X-API-Key`.
    pub api_key: Option<Secret>,
    /// Sent as `X-Admin-API-Key`.
    pub admin_key: Option<Secret>,
    /// Sent as `X-User-ID`.
    pub user_id: Option<String>,
    /// Sent as `X-Tenant-ID`.
    pub tenant_id: Option<String>,
    /// For calls that do no work of their own; 30 s.
    pub timeout: Duration,
}

impl Options {
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            api_key: None,
            admin_key: None,
            user_id: None,
            tenant_id: None,
            timeout: CALL_TIMEOUT,
        }
    }
}

/// A server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    timeout: Duration,
}

impl Client {
    pub fn new(options: Options) -> Result<Self, Error> {
        let server = options.server.trim().trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&server).map_err(|_| bad_server(&server))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad_server(&server));
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers(&options)?)
            .user_agent(concat!("stacyvm/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30));
        if url.scheme() == "http" {
            // No certificate is ever looked at: do not read the system's.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        // The second caller finds a provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            builder.build().map_err(|e| Error::Options(format!("cannot set up TLS: {e}")))?;
        Ok(Self { http, server, timeout: options.timeout })
    }

    /// The address of the server, without a closing slash.
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.server))
    }

    /// Sends and reads a JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T, Error> {
        let response = self.send(call.timeout(self.timeout)).await?;
        self.read_json(response).await
    }

    /// Sends a body that may take its time, and reads a JSON answer.
    pub(crate) async fn json_unhurried<T: DeserializeOwned>(
        &self,
        call: RequestBuilder,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let response = self.send(call.json(body)).await?;
        self.read_json(response).await
    }

    /// Sends; an answer that is not a success becomes the error it holds.
    pub(crate) async fn send(&self, call: RequestBuilder) -> Result<Response, Error> {
        let response = self.send_upgrade(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.protocol("another protocol"))
    }

    /// As [`Client::send`]; the answer may also be that the protocol changes.
    pub(crate) async fn send_upgrade(&self, call: RequestBuilder) -> Result<Response, Error> {
        let response = call.send().await.map_err(|e| self.failed(e))?;
        if response.status().is_success() || response.status().is_informational() {
            return Ok(response);
        }
        let status = response.status();
        let (body, _) = self.read_bounded(response, MAX_ERROR_BODY).await?;
        Err(match serde_json::from_slice::<types::api::ErrorBody>(&body) {
            Ok(e) => Error::Api { status: status.as_u16(), code: e.code, message: e.message },
            Err(_) => Error::Api {
                status: status.as_u16(),
                code: String::new(),
                message: format!("{} answered {status}", self.server),
            },
        })
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, Error> {
        let (body, whole) = self.read_bounded(response, MAX_JSON_BODY).await?;
        if !whole {
            return Err(self.protocol("an answer without end"));
        }
        serde_json::from_slice(&body).map_err(|e| self.protocol(&e.to_string()))
    }

    /// Reads a body up to `limit`, and says whether that was all of it.
    pub(crate) async fn read_bounded(
        &self,
        mut response: Response,
        limit: usize,
    ) -> Result<(Vec<u8>, bool), Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(e))? {
            if body.len() + chunk.len() > limit {
                return Ok((body, false));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, true))
    }

    pub(crate) fn failed(&self, source: reqwest::Error) -> Error {
        let server = self.server.clone();
        if source.is_connect() {
            Error::Connect { server, source }
        } else if source.is_timeout() {
            Error::TimedOut { server, source }
        } else {
            Error::Broken { server, source }
        }
    }

    pub(crate) fn protocol(&self, what: &str) -> Error {
        Error::Protocol { server: self.server.clone(), what: what.to_owned() }
    }
}

/// One segment of a path, whatever it holds.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn headers(options: &Options) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    let mut put = |name: &'static str, value: &str, secret: bool| {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| Error::Options(format!("the value for {name} cannot be sent")))?;
        value.set_sensitive(secret);
        map.insert(name, value);
        Ok::<(), Error>(())
    };
    for (name, key) in [("x-api-key", &options.api_key), ("x-admin-api-key", &options.admin_key)] {
        if let Some(key) = key.as_ref().filter(|k| !k.is_empty()) {
            put(name, key.reveal(), true)?;
        }
    }
    for (name, id) in [("x-user-id", &options.user_id), ("x-tenant-id", &options.tenant_id)] {
        if let Some(id) = id {
            put(name, id, false)?;
        }
    }
    Ok(map)
}

/// A proxy cannot reach this machine's own loopback: never ask one to.
fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bad_server(server: &str) -> Error {
    Error::Options(format!(
        "`{server}` is not the address of a server: write it like http://localhost:7423"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["http://localhost:7423", "https://example.com/", "http://[::1]:1"] {
            assert!(Client::new(Options::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "localhost:7423", "ftp://x", "http://"] {
            assert!(matches!(Client::new(Options::new(bad)), Err(Error::Options(_))), "{bad}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        let loopback = |t: &str| is_loopback(&reqwest::Url::parse(t).unwrap());
        assert!(loopback("http://LOCALHOST:1") && loopback("http://127.9.9.9"));
        assert!(loopback("http://[::1]:7423"));
        assert!(!loopback("http://localhost.example.com") && !loopback("http://10.0.0.1"));
    }

    #[test]
    fn an_id_cannot_leave_its_segment() {
        assert_eq!(segment("../a?b#c d"), "..%2Fa%3Fb%23c%20d");
        assert_eq!(segment("sb-0a1b"), "sb-0a1b");
    }
}
