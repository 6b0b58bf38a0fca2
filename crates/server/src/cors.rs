//! Cross-origin rules (BUG-8: they come before the keys).

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, X-API-Key, X-Admin-API-Key, X-Request-ID, X-User-ID, X-Tenant-ID, \
     Authorization, Idempotency-Key",
);
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-ID, Retry-After, X-Next-Cursor, Content-Range, Accept-Ranges, Repr-Digest, \
     Digest",
);
const ANY: HeaderValue = HeaderValue::from_static("*");

pub(crate) struct Cors {
    /// `None`: any origin.
    allowed: Option<Vec<String>>,
}

impl Cors {
    pub fn new(origins: &[String]) -> Self {
        let any = origins.is_empty() || origins.iter().any(|o| o == "*");
        Self { allowed: (!any).then(|| origins.to_vec()) }
    }

    /// Whether the configuration names this origin, not merely does not forbid it.
    pub fn names(&self, origin: &str) -> bool {
        self.allowed.as_ref().is_some_and(|list| list.iter().any(|o| o == origin))
    }

    /// Whether a preflight from these headers' origin is answered with a yes.
    pub fn permits(&self, request: &HeaderMap) -> bool {
        match (&self.allowed, request.get(ORIGIN)) {
            (None, _) | (_, None) => true,
            (Some(_), Some(origin)) => origin.to_str().is_ok_and(|o| self.names(o)),
        }
    }

    /// What goes on an answer to a request from `origin`.
    pub fn stamp(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.allowed.is_none() {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            return;
        }
        answer.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|o| o.to_str().is_ok_and(|o| self.names(o))) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(cors: &Cors, origin: &'static str) -> Option<String> {
        let mut answer = HeaderMap::new();
        cors.stamp(Some(&HeaderValue::from_static(origin)), &mut answer);
        answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_list_is_held_to() {
        let cors = Cors::new(&["http://a.example".to_owned()]);
        assert_eq!(allowed(&cors, "http://a.example").as_deref(), Some("http://a.example"));
        assert_eq!(allowed(&cors, "http://a.example.evil"), None);
        let open = Cors::new(&[]);
        assert_eq!(allowed(&open, "http://b.example").as_deref(), Some("*"));
        assert!(!open.names("http://b.example"));
    }
}
